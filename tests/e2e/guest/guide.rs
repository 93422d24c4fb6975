//! The guide, as a reader would paste it, on an ingress that serves meanwhile.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use nixgate_tests::envoy_config::{merge, parse};
use nixgate_tests::live::builder::TOKEN;
use nixgate_tests::live::company::{Company, PAGE};
use nixgate_tests::live::install::{self, ENVOY_VERSIONS};
use nixgate_tests::live::process::run;
use nixgate_tests::live::{poll, scratch};

use serde_json::json;

use super::registry::copy;

const PAGE_FILE: &str = "docs/src/existing-ingress.md";

/// One connection with TLS, for one request after the other.
struct Kept {
    client: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    host: &'static str,
    path: &'static str,
    body: &'static str,
}

impl Kept {
    fn open(
        company: &Company,
        host: &'static str,
        path: &'static str,
        body: &'static str,
    ) -> Result<Self> {
        let mut client = Command::new("openssl")
            .args([
                "s_client",
                "-quiet",
                "-verify_return_error",
                "-servername",
                host,
            ])
            .args(["-connect", &format!("127.0.0.1:{}", company.secure())])
            .arg("-CAfile")
            .arg(company.authority())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let requests = client.stdin.take().context("a pipe")?;
        let answers = BufReader::new(client.stdout.take().context("a pipe")?);
        Ok(Self {
            client,
            requests,
            answers,
            host,
            path,
            body,
        })
    }

    /// Sends a request and reads the answer, up to the last line of its body.
    fn ask(&mut self) -> Result<()> {
        let Self { host, path, .. } = *self;
        write!(self.requests, "GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
        self.requests.flush()?;
        loop {
            let mut line = String::new();
            let read = self.answers.read_line(&mut line)?;
            ensure!(read > 0, "the connection for {host} is closed");
            let lower = line.to_lowercase();
            ensure!(lower.trim() != "connection: close", "{host} is drained");
            if line == self.body {
                return Ok(());
            }
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        _ = self.client.kill();
        _ = self.client.wait();
    }
}

/// The commands of the page's steps that change a running Envoy.
fn steps() -> Result<Vec<String>> {
    let page = fs::read_to_string(install::root().join(PAGE_FILE))?;
    let (_, section) = page
        .split_once("## A listener of its own, step by step\n")
        .context("a section")?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let blocks = section.split("```sh\n").skip(1);
    Ok(blocks
        .filter_map(|rest| Some(rest.split_once("```")?.0.to_owned()))
        .collect())
}

#[test]
fn the_guides_steps_close_no_connection() -> Result<()> {
    let mut company = Company::start()?;
    company.start_app()?;
    let folder = scratch::folder("guide-")?;
    company.write_example(folder.path())?;
    let steps = steps()?;
    assert!(steps.len() >= 4, "only {} steps", steps.len());
    for version in ENVOY_VERSIONS {
        company.put_all_before()?;
        let envoy = company.envoy(version, TOKEN)?;
        let mut kept = [
            Kept::open(&company, "app.corp", "/", PAGE)?,
            Kept::open(&company, "api.corp", "/public", "api\n")?,
        ];
        kept.iter_mut().try_for_each(Kept::ask)?;
        for step in &steps {
            paste(&company, folder.path(), step)?;
            kept.iter_mut().try_for_each(Kept::ask)?;
        }
        copy(&company, "shell/hello", &company.password("alice")?)?;
        kept.iter_mut().try_for_each(Kept::ask)?;
        for stat in [
            "listener_manager.listener_modified",
            "listener_manager.listener_in_place_updated",
            "listener_manager.lds.update_rejected",
            "http.web.downstream_cx_drain_close",
            "http.api.downstream_cx_drain_close",
        ] {
            assert_eq!(company.admin().stat(stat)?, 0, "{stat}\n{}", envoy.log());
        }
    }
    Ok(())
}

#[test]
fn a_chain_for_the_registrys_name_closes_no_other_connection() -> Result<()> {
    let mut company = Company::start()?;
    company.start_app()?;
    for version in ENVOY_VERSIONS {
        company.put_all()?;
        let envoy = company.envoy(version, TOKEN)?;
        let mut kept = [
            Kept::open(&company, "app.corp", "/", PAGE)?,
            Kept::open(&company, "api.corp", "/public", "api\n")?,
        ];
        kept.iter_mut().try_for_each(Kept::ask)?;
        let mut lds = parse(&company.file("lds.yaml")?);
        let chains = &mut lds["resources"][1]["filter_chains"];
        let chains = chains.as_array_mut().context("chains")?;
        let mut chain = chains.last().context("a chain")?.clone();
        assert_eq!(chain["name"], "web");
        merge(
            &mut chain,
            json!({"name": "registry", "filter_chain_match": {"server_names": ["registry.corp"]}}),
        );
        chain["filters"][0]["typed_config"]["stat_prefix"] = "registry_chain".into();
        chains.push(chain);
        company.put("lds.yaml", &lds.to_string())?;
        poll::until("the registry is served by its own chain", || {
            company.ask("registry.corp", "/v2/", &[]).ok()?;
            let served = company
                .admin()
                .stat("http.registry_chain.downstream_rq_4xx");
            (served.ok()? > 0).then_some(())
        })?;
        for _ in 0..3 {
            kept.iter_mut().try_for_each(Kept::ask)?;
        }
        let updated = company
            .admin()
            .stat("listener_manager.listener_in_place_updated")?;
        assert_eq!(updated, 1, "{}", envoy.log());
    }
    Ok(())
}

/// Does a step, again until its checks succeed: Envoy reads a file after it was renamed.
fn paste(company: &Company, example: &Path, step: &str) -> Result<()> {
    let example = format!("{}/", example.display());
    let step = company
        .here(step)?
        .replace("envoy/ingress-with-login/", &example);
    let step = step
        .replace("registry.corp/", &format!("{}/", company.registry()))
        .replace(
            "curl ",
            &format!(
                "curl --disable --noproxy '*' --cacert {} --connect-to ::127.0.0.1:{} ",
                company.authority().display(),
                company.secure()
            ),
        );
    poll::until(&format!("this step is done:\n{step}"), || {
        run(Command::new("bash").args(["-euo", "pipefail", "-c", &step])).ok()
    })?;
    Ok(())
}

#[test]
fn the_page_shows_what_nixgate_adds_to_the_companys_files() -> Result<()> {
    let folder = install::root().join("envoy/ingress-with-login");
    let page = fs::read_to_string(install::root().join(PAGE_FILE))?;
    for file in ["envoy.yaml", "routes-web.yaml"] {
        let output = Command::new("diff")
            .args(["--unified=2", &format!("--label=before/{file}")])
            .args([&format!("--label={file}"), &format!("before/{file}"), file])
            .current_dir(&folder)
            .output()?;
        let diff = String::from_utf8(output.stdout)?;
        assert!(!diff.is_empty(), "{file}");
        let shown = page.contains(&format!("```diff\n{diff}```\n"));
        assert!(shown, "{PAGE_FILE} is to show:\n{diff}");
    }
    // These are longer, and all new: nothing of the company's is changed or removed.
    for file in ["lds.yaml", "cds.yaml"] {
        let content = |path: &str| -> Result<Vec<String>> {
            let text = fs::read_to_string(folder.join(path))?;
            let (_, resources) = text.split_once("\nresources:\n").context("resources")?;
            Ok(resources.trim_end().lines().map(str::to_owned).collect())
        };
        let (before, with) = (content(&format!("before/{file}"))?, content(file)?);
        assert_eq!(with.get(..before.len()), Some(&before[..]), "{file}");
        assert!(with.len() > before.len());
    }
    Ok(())
}
