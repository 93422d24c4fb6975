//! `nixgate recipes`: checks a file of recipes.

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;

use crate::request::recipes::RecipeFile;

/// The subcommands of `nixgate recipes`.
#[derive(Subcommand)]
pub enum RecipesCommand {
    /// Check a file of recipes, and list their images
    Check {
        /// The file
        recipes: PathBuf,
    },
}

/// # Errors
/// When the file can't be read or is invalid; the error names the image and the key.
pub(crate) fn run(command: &RecipesCommand) -> Result<bool> {
    let RecipesCommand::Check { recipes } = command;
    for recipe in RecipeFile::open(Some(recipes))?.current().iter() {
        println!("{}: {}", recipe.name, recipe.packages.short_name());
    }
    Ok(true)
}
