//! The table of the reference page, from the arguments that are parsed.

use clap::{Arg, CommandFactory, Parser};
use nixgate_core::reference::{Row, table, with_table};

use super::login::TOKEN_SECONDS;
use super::{
    Bounds, MAX_BUILDS, MAX_CONNECTIONS, MAX_LAYERS, MAX_QUEUE, MAX_REFS, PIN_SECONDS, ServeArgs,
};

const BOUNDS: [Bounds; 7] = [
    MAX_CONNECTIONS,
    MAX_REFS,
    MAX_LAYERS,
    PIN_SECONDS,
    MAX_BUILDS,
    MAX_QUEUE,
    TOKEN_SECONDS,
];

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    serve: ServeArgs,
}

fn row(argument: &Arg) -> Row {
    let flag = argument.get_long().expect("every setting is a flag");
    let variable = argument.get_env().expect("and a variable");
    let variable = variable.to_string_lossy();
    let takes_value = argument.get_action().takes_values();
    let value = argument.get_value_names().filter(|_| takes_value);
    let value = value.map_or_else(String::new, |names| format!(" <{}>", names.join(" ")));
    let default = argument.get_default_values().join(" ".as_ref());
    let default = match default.to_string_lossy() {
        default if default.is_empty() => String::new(),
        default => format!("`{default}`"),
    };
    let help = argument.get_help().expect("every setting has a comment");
    let mut meaning = help.to_string();
    let choices: Vec<_> = argument
        .get_possible_values()
        .iter()
        .filter(|choice| takes_value && !choice.is_hide_set())
        .map(|choice| format!("`{}`", choice.get_name()))
        .collect();
    if !choices.is_empty() {
        meaning.push_str(&format!("; {}", choices.join(" or ")));
    }
    if let Some(bounds) = BOUNDS.iter().find(|bounds| *bounds.variable == *variable) {
        meaning.push_str(&format!("; {}", bounds.words()));
    }
    Row::new([
        format!("`{variable}`"),
        format!("`--{flag}{value}`"),
        default,
        meaning,
    ])
}

#[test]
fn the_reference_page_has_the_settings_of_the_builder() {
    let rows: Vec<_> = Cli::command().get_arguments().map(row).collect();
    let rows = table(["variable", "flag", "default", ""], &rows);
    let page = expect_test::expect_file!["../../../docs/src/settings.md"];
    page.assert_eq(&with_table(&page.data(), "builder", &rows));
}
