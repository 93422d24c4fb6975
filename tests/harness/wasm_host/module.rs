//! The filter's module: built from the sources at hand, or a finished one to be tested.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use wasmtime::{Engine, Module};

/// Names a module to test instead of building one, such as that of a release.
const PATH_VARIABLE: &str = "NIXGATE_FILTER_WASM";

/// The module's bytes.
pub fn bytes() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let path = std::env::var_os(PATH_VARIABLE).map_or_else(build, PathBuf::from);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    })
}

/// What the module wants of its host, as `module.function`, sorted.
pub fn imports() -> Vec<String> {
    let (_, module) = compiled();
    let imports = module.imports();
    let mut names: Vec<_> = imports
        .map(|import| format!("{}.{}", import.module(), import.name()))
        .collect();
    names.sort();
    names
}

/// The functions by which the host may call the module, sorted.
pub fn exports() -> Vec<String> {
    let (_, module) = compiled();
    let functions = module
        .exports()
        .filter(|export| export.ty().func().is_some());
    let mut names: Vec<_> = functions.map(|export| export.name().to_owned()).collect();
    names.sort();
    names
}

/// The module as machine code. Compiling takes a second or more, so it is done once a process.
pub(super) fn compiled() -> &'static (Engine, Module) {
    static COMPILED: OnceLock<(Engine, Module)> = OnceLock::new();
    COMPILED.get_or_init(|| {
        let engine = Engine::default();
        let module = Module::new(&engine, bytes()).expect("the module is valid");
        (engine, module)
    })
}

/// Has cargo build the module, or find that it is up to date, and asks it for the path: a file
/// that merely lies where one is expected may be of yesterday.
fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--package", "nixgate-filter"])
        .args(["--profile", "wasm", "--target", "wasm32-wasip1"])
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        // Meant for the tests themselves, such as those that measure coverage.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo can be started");
    assert!(
        output.status.success(),
        "the filter can't be built; or set {PATH_VARIABLE} to a module"
    );
    output
        .stdout
        .split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter_map(|message| {
            let files = message["filenames"].as_array()?.iter();
            let mut files = files.filter_map(Value::as_str);
            files
                .find(|file| file.ends_with("nixgate_filter.wasm"))
                .map(PathBuf::from)
        })
        .next_back()
        .expect("cargo says where the module is")
}
