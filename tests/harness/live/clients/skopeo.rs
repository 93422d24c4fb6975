//! skopeo: copies images between places.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use serde_json::Value;

use crate::live::process::run;

/// Copies an image into `folder`, verifying every digest on the way.
///
/// # Errors
/// When skopeo fails.
pub fn copy(image: &str, folder: &Path) -> Result<()> {
    run(Command::new("skopeo")
        .args(["copy", "--quiet", "--src-tls-verify=false"])
        .arg(format!("docker://{image}"))
        .arg(format!("dir:{}", folder.display())))?;
    Ok(())
}

/// As [`copy`], from an OCI image layout.
///
/// # Errors
/// When skopeo fails.
pub fn copy_layout(layout: &Path, tag: &str, folder: &Path) -> Result<()> {
    run(Command::new("skopeo")
        .args(["copy", "--quiet"])
        .arg(format!("oci:{}:{tag}", layout.display()))
        .arg(format!("dir:{}", folder.display())))?;
    Ok(())
}

/// As [`copy`], as a user of a registry whose certificate the authority in the folder `ca` signed.
///
/// # Errors
/// When skopeo fails.
pub fn copy_as(image: &str, user: &str, password: &str, ca: &Path, folder: &Path) -> Result<()> {
    run(&mut copying_as(image, user, password, ca, folder))?;
    Ok(())
}

/// The command that [`copy_as`] runs.
pub fn copying_as(image: &str, user: &str, password: &str, ca: &Path, folder: &Path) -> Command {
    let mut command = Command::new("skopeo");
    command
        .args(["copy", "--quiet", "--src-creds"])
        .arg(format!("{user}:{password}"))
        .arg("--src-cert-dir")
        .arg(ca)
        .arg(format!("docker://{image}"))
        .arg(format!("dir:{}", folder.display()));
    command
}

/// Pushes the image that [`copy`] brought into `folder`.
///
/// # Errors
/// When skopeo fails.
pub fn push(folder: &Path, image: &str) -> Result<()> {
    run(Command::new("skopeo")
        .args(["copy", "--quiet", "--dest-tls-verify=false"])
        .arg(format!("dir:{}", folder.display()))
        .arg(format!("docker://{image}")))?;
    Ok(())
}

/// What skopeo says of an image.
///
/// # Errors
/// When skopeo fails.
pub fn inspect(image: &str) -> Result<Value> {
    let printed = run(Command::new("skopeo")
        .args(["inspect", "--tls-verify=false"])
        .arg(format!("docker://{image}")))?;
    Ok(serde_json::from_str(&printed)?)
}
