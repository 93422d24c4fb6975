//! Jobs of CI systems in images of `ci`: programs that Nix has not built, and users other than root.

use std::fs;

use anyhow::Result;
use nixgate_tests::live::clients::podman::Podman;
use nixgate_tests::live::stack::Stack;
use nixgate_tests::live::{install, scratch};

use crate::shapes::shaped_stack;

/// Where GitHub's runner mounts its Node.js.
const NODE: &str = "/__e/node22/bin/node";

/// Asks itself over http, and uses zlib and cryptography.
const PROGRAM: &str = "
const crypto = require('crypto'), http = require('http'), zlib = require('zlib');
const server = http.createServer((_, answer) => answer.end(zlib.gzipSync('content')));
server.listen(0, '127.0.0.1', () => http.get({ port: server.address().port }, answer => {
  const pieces = [];
  answer.on('data', piece => pieces.push(piece));
  answer.on('end', () => {
    const text = zlib.gunzipSync(Buffer.concat(pieces)).toString();
    const hash = crypto.createHash('sha256').update(text).digest('hex');
    console.log(text, hash.slice(0, 8), new Date(0).getHours());
    server.close();
  });
}));";

/// Runs a script in a container of the image `ci`, with the foreign Node.js and its program.
fn run(stack: &Stack, script: &str) -> Result<String> {
    let folder = scratch::folder("ci-")?;
    let program = folder.path().join("program.js");
    fs::write(&program, PROGRAM)?;
    let podman = Podman::new()?;
    let image = stack.image("ci");
    podman.pull(&image)?;
    let node = format!("--volume={}:{NODE}:ro", install::foreign_node()?.display());
    let program = format!("--volume={}:/program.js:ro", program.display());
    let options = [
        "--network=none",
        "--env=TZ=Europe/Berlin",
        "--entrypoint=sh",
        &node,
        &program,
    ];
    podman.run_with(&options, &image, &["-ec", script])
}

fn what_a_job_needs(stack: &Stack) -> Result<()> {
    let script = format!(
        r#"
        {NODE} /program.js
        date --date=@0 +%H
        . /etc/os-release; echo $ID
        cd /tmp
        tar -cf - -C /etc passwd | zstd | zstd -d | tar -tf -
        echo a b | gzip | gzip -d | gawk '{{ print $2 }}' | sed s/b/c/ | grep c
        echo x | xz | xz -d | xargs echo
        find /etc -maxdepth 1 -name passwd | diff - /dev/null || echo differs
        test "$(readlink -f /bin/sh)" = "$(readlink -f /bin/bash)"
        "#
    );
    let expected = "content ed7002b4 1\n01\nnixgate\npasswd\nc\nx\n1d0\n< /etc/passwd\ndiffers\n";
    assert_eq!(run(stack, &script)?, expected);
    Ok(())
}

#[test]
fn a_foreign_node_and_the_tools_of_jobs_work_with_the_embedded_set() -> Result<()> {
    what_a_job_needs(crate::shared())
}

#[test]
fn a_foreign_node_and_the_tools_of_jobs_work_with_a_set_like_nixpkgs() -> Result<()> {
    let (_set, stack) = shaped_stack()?;
    what_a_job_needs(&stack)?;
    // Of the folder alone: without it, the loader finds no library that is not its own.
    let script = format!(
        r#"
        echo "$LD_LIBRARY_PATH" "$LD_LIBRARY_PATH"/*
        LD_LIBRARY_PATH= {NODE} --version 2>&1 | grep --only-matching 'libstdc++.so.6: cannot open'
        ldd
        "#
    );
    let said = run(&stack, &script)?;
    let folder = "/usr/lib/foreign";
    assert_eq!(
        said,
        format!(
            "{folder} {folder}/libgcc_s.so.1 {folder}/libstdc++.so.6\n\
             libstdc++.so.6: cannot open\nldd of this set\n"
        )
    );
    Ok(())
}
