//! What an image is made of, for people: from the records of its packages, by the code that builds it.

use super::errors;
use super::nix_builder::{NixBuilder, execution, outputs};
use crate::builder::ImageRequest;
use crate::closure::StorePath;
use crate::image::Execution;
use crate::layer::{self, Merged};
use crate::nix::Derivation;
use nixgate_core::distribution::Error;

pub(crate) struct Explanation {
    /// With their outputs, in the order of the image's packages.
    pub(crate) packages: Vec<(String, Vec<StorePath>)>,
    pub(crate) merged: Merged,
    /// Without the variables of every image.
    pub(crate) execution: Execution,
}

impl NixBuilder {
    /// None if some package has no record: the image has to be built then.
    ///
    /// # Errors
    /// When storage can't be read.
    pub(crate) async fn explain(&self, image: &ImageRequest) -> Result<Option<Explanation>, Error> {
        let records = self.packages.records(image).await?;
        let records: Option<Vec<_>> = records.into_iter().collect();
        let Some(records) = records else {
            return Ok(None);
        };
        let image = image.clone();
        let explanation = tokio::task::spawn_blocking(move || {
            let trees = outputs(&records);
            let trees = trees.iter().map(|(path, tree)| (path, tree));
            let merged = layer::merge(trees, records.iter().map(|one| &one.reach));
            let derivations: Vec<&Derivation> = records.iter().map(|one| &one.derivation).collect();
            let execution = execution(&image, &derivations, merged.environment.clone());
            let packages = image.packages.iter().cloned();
            let outputs = records.iter().map(|one| one.outputs().cloned().collect());
            Explanation {
                packages: packages.zip(outputs).collect(),
                merged,
                execution,
            }
        });
        Ok(Some(explanation.await.map_err(errors::internal)?))
    }
}
