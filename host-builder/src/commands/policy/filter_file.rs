//! Puts policies into a filter's configuration, a file of YAML that people write.
//!
//! ```text
//!   text ──► the parser's events with their places ──► the settings of the resource with the name
//!     │                                                    │
//!     │      a text of JSON (StringValue) ◄────────────────┘
//!     └──► the same text with other settings ──► read again: the settings are as wanted, and nothing
//!                                                else has changed
//! ```
//!
//! Only the settings are written anew: in a block, as lines of it; in quotes, in double quotes. All other
//! text stays, comments included.

use std::ops::Range;

use anyhow::{Context, Result, anyhow, bail, ensure};
use granit_parser::{Event, Parser, ScalarStyle, Span};
use nixgate_core::config::Config;
use serde_json::Value;

use super::entries::entries;

/// The indent of the settings in a block, and of the keys in the settings.
const INDENT: usize = 2;
/// Far more levels than a configuration has.
const DEPTH: usize = 100;
/// When the new file would not be what is wanted.
const ADVICE: &str = "the file is written in a way that this command cannot change. Write the settings \
                      as JSON in a block, below a line `value: |`";

/// The file with other policies, checked; its other settings and its comments stay. `name` is that of
/// the resource.
pub(super) fn with_policies(
    file: &str,
    name: &str,
    policy: &str,
    shadow: Option<&str>,
) -> Result<String> {
    let old = parse(file)?;
    let tree = Tree::read(file)?;
    let configuration = configuration(&tree, name)?;
    let value = configuration
        .get("value")
        .context("its `configuration` has no `value` with the settings")?;
    let kind = configuration.get("@type").and_then(Tree::text);
    let kind = kind.and_then(|kind| kind.rsplit(['.', '/']).next());
    let (Some("StringValue"), Kind::Scalar { text, style }) = (kind, &value.kind) else {
        // Envoy hands a Struct to the filter in protobuf's binary form.
        bail!(
            "its `configuration` must be a google.protobuf.StringValue with the settings as JSON in \
             `value`: the filter can't read anything else"
        );
    };
    let settings = new_settings(text, policy, shadow)?;
    let new = with_text(file, value, *style, configuration.column, &settings)?;
    check(&new, &old, name, &settings)?;
    Ok(new)
}

/// The settings, in their order, with other policies.
fn new_settings(settings: &str, policy: &str, shadow: Option<&str>) -> Result<String> {
    let settings = dedent(settings);
    let mut texts = entries(&settings)?;
    texts.retain(|(key, _)| key != "shadow");
    match texts.iter_mut().find(|(key, _)| key == "policy") {
        Some((_, old)) => *old = policy,
        None => texts.push(("policy".to_owned(), policy)),
    }
    texts.extend(shadow.map(|shadow| ("shadow".to_owned(), shadow)));
    let entries: Vec<String> = texts
        .into_iter()
        .map(|(key, value)| {
            let key = serde_json::to_string(&key)?;
            Ok(indent(&format!("{key}: {}", flush(value)), INDENT))
        })
        .collect::<Result<_>>()?;
    let settings = format!("{{\n{}\n}}", entries.join(",\n"));
    accept(&settings)?;
    Ok(settings)
}

/// Checks settings as the filter does.
fn accept(settings: &str) -> Result<()> {
    // Only Envoy has the variable of the token.
    Config::parse(settings.as_bytes(), |_| Some("token".to_owned()))?;
    Ok(())
}

/// The file with another text as its settings.
fn with_text(
    file: &str,
    value: &Tree<'_>,
    style: ScalarStyle,
    column: usize,
    settings: &str,
) -> Result<String> {
    let range = value.range.clone();
    let before = file.get(..range.start).unwrap_or_default();
    if !matches!(style, ScalarStyle::Literal | ScalarStyle::Folded) {
        let after = file.get(range.end..).unwrap_or_default();
        return Ok(format!(
            "{before}{}{after}",
            serde_json::to_string(settings)?
        ));
    }
    // The parser's place may be that of the first line or of the header.
    let header = block_header(file, &range).context("the block with the settings has no header")?;
    let before = file.get(..header).unwrap_or_default();
    let (line, rest) = file
        .get(header..)
        .and_then(|rest| rest.split_once('\n'))
        .context("the block with the settings has no lines")?;
    // A folded text would be another one, and a fixed indent would be wrong.
    let (indicators, comment) = line.split_once(' ').unwrap_or((line, ""));
    let indicators: String = indicators
        .trim_end()
        .chars()
        .filter(|letter| !letter.is_ascii_digit())
        .map(|letter| if letter == '>' { '|' } else { letter })
        .collect();
    let comment = comment.trim();
    let separator = if comment.is_empty() { "" } else { " " };
    let is_inside = |line: &&str| line.trim().is_empty() || indent_of(line) > column;
    let lines = rest.split_inclusive('\n').take_while(is_inside);
    let length = lines.map(str::len).sum();
    let after = rest.get(length..).unwrap_or_default();
    let settings = indent(settings, column + INDENT);
    Ok(format!(
        "{before}{indicators}{separator}{comment}\n{settings}\n{after}"
    ))
}

/// Where the header of a block is: `|` or `>` after the key.
fn block_header(file: &str, range: &Range<usize>) -> Option<usize> {
    if file.get(range.start..)?.starts_with(['|', '>']) {
        return Some(range.start);
    }
    let before = file.get(..range.start)?.trim_end();
    let line = before.rfind('\n').map_or(0, |end| end + 1);
    before.get(line..)?.find(['|', '>']).map(|at| line + at)
}

/// Reads the new file as Envoy will: its settings are those that are wanted, and the rest is the old.
fn check(new: &str, old: &Value, name: &str, wanted: &str) -> Result<()> {
    let mut new = parse(new).context(ADVICE)?;
    let mut old = old.clone();
    let found = take_settings(&mut new, name).context(ADVICE)?;
    take_settings(&mut old, name).context(ADVICE)?;
    let found = found.as_str().unwrap_or_default();
    let is_as_wanted = found.trim_end() == wanted.trim_end();
    ensure!(is_as_wanted && new == old, ADVICE);
    Ok(())
}

/// The name of the plugin in the resource of this name; empty without one.
pub(super) fn plugin_name(file: &str, name: &str) -> Result<String> {
    let mut file = parse(file)?;
    let config = resource(&mut file, name)
        .and_then(|resource| field(field(resource, "typed_config")?, "config"));
    let plugin = config.and_then(|config| config.get("name")?.as_str());
    Ok(plugin.unwrap_or_default().to_owned())
}

fn take_settings(file: &mut Value, name: &str) -> Option<Value> {
    let mut value = resource(file, name)?;
    for key in PATH {
        value = field(value, key)?;
    }
    Some(value.get_mut("value")?.take())
}

fn resource<'v>(file: &'v mut Value, name: &str) -> Option<&'v mut Value> {
    let mut resources = field(file, "resources")?.as_array_mut()?.iter_mut();
    resources.find(|one| one.get("name").and_then(Value::as_str) == Some(name))
}

fn field<'v>(value: &'v mut Value, key: &str) -> Option<&'v mut Value> {
    let fields = value.as_object_mut()?;
    let key = if fields.contains_key(key) {
        key.to_owned()
    } else {
        camel_case(key)
    };
    fields.get_mut(&key)
}

/// From a resource to the settings.
const PATH: [&str; 3] = ["typed_config", "config", "configuration"];

/// Envoy reads both spellings.
fn camel_case(key: &str) -> String {
    match key {
        "typed_config" => "typedConfig".to_owned(),
        _ => key.to_owned(),
    }
}

/// The configuration of the plugin in the resource with a name.
fn configuration<'t, 'f>(tree: &'t Tree<'f>, name: &str) -> Result<&'t Tree<'f>> {
    let resources = tree.get("resources").map(|one| &one.kind);
    let Some(Kind::List(resources)) = resources else {
        bail!("it has no list of `resources`: give --filter the file that envoy.yaml names");
    };
    let name_of = |one: &Tree<'_>| {
        one.get("name")
            .and_then(Tree::text)
            .unwrap_or_default()
            .to_owned()
    };
    let mut named = resources.iter().filter(|one| name_of(one) == name);
    let resource = match (named.next(), named.next()) {
        (Some(one), None) => one,
        (None, _) => {
            let names: Vec<String> = resources.iter().map(name_of).collect();
            bail!(
                "it has no resource named {name}, but {}: give --name the filter's name",
                names.join(", ")
            );
        }
        (Some(_), Some(_)) => {
            bail!("it has more than one resource named {name}: remove the others")
        }
    };
    PATH.iter().try_fold(resource, |node, key| {
        let found = node.get(key);
        found.with_context(|| format!("the resource {name} has no `{}`", PATH.join(".")))
    })
}

fn parse(yaml: &str) -> Result<Value> {
    serde_saphyr::from_str(yaml).map_err(|error| anyhow!("it is not YAML: {error}"))
}

/// A node of YAML, with its place in the text.
#[derive(Debug)]
struct Tree<'f> {
    kind: Kind<'f>,
    /// In bytes, from the first character to behind the last.
    range: Range<usize>,
    /// The column of its first character, from 0; of a mapping, that of its keys.
    column: usize,
}

#[derive(Debug)]
enum Kind<'f> {
    Scalar {
        text: std::borrow::Cow<'f, str>,
        style: ScalarStyle,
    },
    Map(Vec<(Tree<'f>, Tree<'f>)>),
    List(Vec<Tree<'f>>),
    /// The same as a node elsewhere.
    Alias,
}

impl<'f> Tree<'f> {
    fn read(text: &'f str) -> Result<Self> {
        let mut parser = Parser::new_from_str(text);
        loop {
            let (event, span) = next(&mut parser)?;
            match event {
                Event::StreamStart | Event::DocumentStart(..) => {}
                event => return Self::node(event, span, &mut parser, DEPTH),
            }
        }
    }

    fn node<'p, P>(event: Event<'f>, span: Span, parser: &mut P, depth: usize) -> Result<Self>
    where
        P: Iterator<Item = ParseResult<'f>> + 'p,
    {
        let depth = depth.checked_sub(1).context("it is nested too deeply")?;
        let mut range = span
            .byte_range()
            .context("the parser does not know its place")?;
        let column = span.start.col();
        let kind = match event {
            Event::Scalar(text, style, ..) => Kind::Scalar { text, style },
            Event::Alias(..) => Kind::Alias,
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    let (event, span) = next(parser)?;
                    if matches!(event, Event::SequenceEnd) {
                        range.end = end(range.end, &span, items.last());
                        break Kind::List(items);
                    }
                    items.push(Self::node(event, span, parser, depth)?);
                }
            }
            Event::MappingStart(..) => {
                let mut entries: Vec<(Self, Self)> = Vec::new();
                loop {
                    let (event, span) = next(parser)?;
                    if matches!(event, Event::MappingEnd) {
                        range.end = end(range.end, &span, entries.last().map(|(_, value)| value));
                        break Kind::Map(entries);
                    }
                    let key = Self::node(event, span, parser, depth)?;
                    let (event, span) = next(parser)?;
                    entries.push((key, Self::node(event, span, parser, depth)?));
                }
            }
            _ => bail!("it has more than one document, or ends too early"),
        };
        // The keys of a block mapping have a column; the mapping itself may begin before them.
        let column = match &kind {
            Kind::Map(entries) => entries.first().map_or(column, |(key, _)| key.column),
            _ => column,
        };
        Ok(Self {
            kind,
            range,
            column,
        })
    }

    fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The value of a key, in the schema's spelling or the other.
    fn get(&self, key: &str) -> Option<&Self> {
        let Kind::Map(entries) = &self.kind else {
            return None;
        };
        let of = |wanted: &str| {
            let mut entries = entries.iter();
            entries
                .find(|(key, _)| key.text() == Some(wanted))
                .map(|(_, value)| value)
        };
        of(key).or_else(|| of(&camel_case(key)))
    }
}

type ParseResult<'f> = Result<(Event<'f>, Span), granit_parser::ScanError>;

fn next<'f>(parser: &mut impl Iterator<Item = ParseResult<'f>>) -> Result<(Event<'f>, Span)> {
    let next = parser.next().context("it ends too early")?;
    next.map_err(|error| anyhow!("it is not YAML: {error}"))
}

/// The end of a collection: its bracket, or the end of its last node, so that comments and blank lines
/// behind it are not part of it.
fn end(start: usize, closing: &Span, last: Option<&Tree<'_>>) -> usize {
    match closing.byte_range() {
        Some(range) if !range.is_empty() => range.end,
        _ => last.map_or(start, |one| one.range.end),
    }
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// The text without the indent that all of its lines have.
fn dedent(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let common = lines.map(indent_of).min().unwrap_or(0);
    let lines = text
        .lines()
        .map(|line| line.get(common..).unwrap_or_default());
    lines.map(|line| format!("{line}\n")).collect()
}

/// A value with its last line as little indented as its first.
fn flush(value: &str) -> String {
    let Some((first, rest)) = value.split_once('\n') else {
        return value.to_owned();
    };
    format!("{}\n{}", first.trim_end(), dedent(rest).trim_end())
}

fn indent(text: &str, by: usize) -> String {
    let lines = text
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty());
    let lines: Vec<String> = lines.map(|line| format!("{:by$}{line}", "")).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests;
