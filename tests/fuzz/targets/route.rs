//! `:path` of a request, as any client may write it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nixgate_core::distribution::Route;

fuzz_target!(|path: &str| {
    let written = match Route::parse(path) {
        Ok(Route::Manifest {
            repository,
            reference,
        }) => format!("/v2/{repository}/manifests/{reference}"),
        Ok(Route::Blob { repository, digest }) => format!("/v2/{repository}/blobs/{digest}"),
        Ok(Route::Catalog) => "/v2/_catalog".to_owned(),
        Ok(Route::Tags { repository }) => format!("/v2/{repository}/tags/list"),
        Ok(Route::Referrers { repository, digest }) => {
            format!("/v2/{repository}/referrers/{digest}")
        }
        Err(error) => {
            assert!((400..500).contains(&error.status()));
            return;
        }
        Ok(Route::Base | Route::Elsewhere) => return,
    };
    assert_eq!(Some(written.as_str()), path.split('?').next());
});
