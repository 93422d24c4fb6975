//! Container clients, each with folders of its own: nothing of this machine's is used or changed.

pub mod containerd;
pub mod docker;
pub mod podman;
pub mod skopeo;
