//! Answers that Nix code tells by traces while it is evaluated, so that those before a failure are not
//! lost.

use crate::process::{Listener, Tail};

use super::output::Described;

/// Bytes of an answer: nothing that is longer is kept.
const MAX_ANSWER: usize = 1 << 20;
/// Bytes of all answers of an evaluation.
const MAX_ANSWERS: usize = 64 << 20;

/// Listens to an evaluation of `nix/attributes.nix`.
pub(super) struct Told {
    /// What begins the lines of answers. Packages, whose code traces as well, can't know it.
    mark: String,
    line: Vec<u8>,
    length: usize,
    answers: Vec<Described>,
    others: Tail,
}

impl Told {
    pub(super) fn new(word: &str) -> Self {
        Self {
            mark: format!("trace: {word} "),
            line: Vec::new(),
            length: 0,
            answers: Vec::new(),
            others: Tail::default(),
        }
    }

    /// The answers, in order, up to the first that can't be read.
    pub(super) fn into_answers(self) -> Vec<Described> {
        self.answers
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let Some(answer) = line.strip_prefix(self.mark.as_bytes()) else {
            self.others.hear(&line);
            self.others.hear(b"\n");
            return;
        };
        self.length += answer.len();
        let is_too_long = answer.len() > MAX_ANSWER || self.length > MAX_ANSWERS;
        match serde_json::from_slice(answer) {
            Ok(answer) if !is_too_long => self.answers.push(answer),
            // It is an answer, so that the next ones have their places.
            _ => self.answers.push(Described::Failed {
                reason: "what the package set says of it is too long, or not understood".to_owned(),
            }),
        }
    }
}

impl Listener for Told {
    fn hear(&mut self, piece: &[u8]) {
        let mut lines = piece.split(|byte| *byte == b'\n');
        let mut next = lines.next();
        while let Some(part) = next {
            next = lines.next();
            let room = (MAX_ANSWER + self.mark.len() + 1).saturating_sub(self.line.len());
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            if next.is_some() {
                self.end_line();
            }
        }
    }

    fn end(&mut self) -> String {
        let rest = std::mem::take(&mut self.line);
        self.others.hear(&rest);
        self.others.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(pieces: &[&str]) -> (Vec<Described>, String) {
        let mut told = Told::new("w0rd");
        for piece in pieces {
            told.hear(piece.as_bytes());
        }
        let rest = told.end();
        (told.into_answers(), rest)
    }

    #[test]
    fn answers_are_told_from_what_packages_trace_and_from_errors() {
        let set = Described::Set {
            names: vec!["a".to_owned()],
            recurse: true,
        };
        let (answers, rest) = heard(&[
            "trace: w0rd {\"kind\":\"other\"}\ntrace: {\"kind\":\"refused\"}\ntra",
            "ce: w0rd {\"kind\":\"set\",\"names\":[\"a\"],\"recurse\":true}\nerror: x\n",
            "trace: w0rd {\"kind\":\"oth",
        ]);
        assert_eq!(answers, [Described::Other, set]);
        assert_eq!(
            rest,
            "trace: {\"kind\":\"refused\"}\nerror: x\ntrace: w0rd {\"kind\":\"oth"
        );
    }

    #[test]
    fn an_answer_that_is_too_long_keeps_its_place() {
        let long = format!("trace: w0rd \"{}\"\n", "a".repeat(2 * MAX_ANSWER));
        let (answers, _) = heard(&[&long, "trace: w0rd {\"kind\":\"other\"}\n"]);
        assert!(matches!(
            answers[..],
            [Described::Failed { .. }, Described::Other]
        ));
    }
}
