//! Settings of Nixery that have no effect here. They are told of, since whoever sets them expects one.

/// Each with the reason.
const WITHOUT_EFFECT: [(&str, &str); 5] = [
    (
        "NIX_POPULARITY_URL",
        "nixgate has no popularity of packages yet, and decides without it which of them share a layer",
    ),
    ("GCS_BUCKET", NO_STORAGE),
    ("GOOGLE_APPLICATION_CREDENTIALS", NO_STORAGE),
    ("GCS_SIGNING_KEY", NO_STORAGE),
    ("GCS_SIGNING_ACCOUNT", NO_STORAGE),
];

const NO_STORAGE: &str = "nixgate can't store images in Google Cloud Storage yet";

/// The error for Nixery's other storage.
pub(super) const NO_GCS: &str = "NIXERY_STORAGE_BACKEND is gcs, but nixgate can't store images in Google \
                                 Cloud Storage yet: a later release will. Until then, set \
                                 NIXERY_STORAGE_BACKEND to filesystem and STORAGE_PATH to a folder, or to s3 \
                                 and S3_BUCKET to a bucket";

/// A warning for each of these that is set.
pub(super) fn without_effect(is_set: impl Fn(&str) -> bool) -> Vec<String> {
    let set = WITHOUT_EFFECT.iter().filter(|(name, _)| is_set(name));
    set.map(|(name, why)| {
        format!("{name} has no effect: {why}. Leave it for a later release, or unset it")
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_setting_that_is_given_is_told_of() {
        let told = |given: &'static [&str]| without_effect(|name| given.contains(&name));
        assert!(told(&["PORT", "NIXERY_CHANNEL"]).is_empty());
        for (name, _) in WITHOUT_EFFECT {
            let told = without_effect(|given| given == name);
            let [warning] = &told[..] else {
                panic!("{name}: {told:?}");
            };
            assert!(warning.starts_with(&format!("{name} has no effect: ")));
        }
        assert_eq!(told(&["GCS_BUCKET", "NIX_POPULARITY_URL"]).len(), 2);
    }
}
