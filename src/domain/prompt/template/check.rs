//! What a prompt's text may hold, decided by its tokens, before anything is parsed or computed: parsing a long chain of
//! operators recurses, and compiling computes constants.

use std::collections::HashSet;

use minijinja::machinery::{Token, Tokenizer};

use super::{NAME, Problem, filters, syntax};
use crate::domain::prompt::{Variable, VariableKind};

/// Most tokens in one `{{ }}` or `{% %}`: chains of operators nest as deep as they are long.
const MAX_TOKENS: usize = 200;
/// Most `elif` in a text: they nest, too.
const MAX_ELIFS: usize = 64;

/// What the check found.
pub(super) struct Checked {
    pub(super) problems: Vec<Problem>,
    /// Whether it is nothing but text.
    pub(super) plain: bool,
}

/// Whether a name is a word of the language.
pub(super) fn is_reserved(name: &str) -> bool {
    is_keyword(name) || matches!(name, "loop" | "self" | "recursive")
}

fn is_keyword(name: &str) -> bool {
    matches!(
        name,
        "and"
            | "or"
            | "not"
            | "in"
            | "is"
            | "if"
            | "else"
            | "true"
            | "false"
            | "none"
            | "True"
            | "False"
            | "None"
    )
}

/// Checks a text with its variables.
pub(super) fn check(text: &str, variables: &[Variable]) -> Checked {
    let mut check =
        Check { variables, used: HashSet::new(), loops: Vec::new(), elifs: 0, problems: Vec::new() };
    let mut tokens = Tokenizer::new(text, NAME, false, syntax());
    let mut tag: Option<Vec<(Token<'_>, u32)>> = None;
    let mut plain = !text.contains("{#");
    loop {
        let (token, line) = match tokens.next_token() {
            Ok(Some((token, span))) => (token, u32::from(span.start_line)),
            Ok(None) => break,
            Err(error) => {
                let line = error.line().and_then(|line| u32::try_from(line).ok());
                check.problems.push(Problem { line, words: super::told(&error) });
                return Checked { problems: check.problems, plain: false };
            }
        };
        match token {
            // the text of a raw block is no tag, yet not as it was written
            Token::TemplateData(_) => {}
            Token::VariableStart | Token::BlockStart => {
                plain = false;
                tag = Some(Vec::new());
                if matches!(token, Token::BlockStart) {
                    tag.get_or_insert_default().push((token, line));
                }
            }
            Token::VariableEnd | Token::BlockEnd => check.tag(&tag.take().unwrap_or_default()),
            token => tag.get_or_insert_default().push((token, line)),
        }
    }
    // one that is never closed: the compiler says so
    check.tag(&tag.take().unwrap_or_default());
    plain &= !text.contains("{%");
    for Variable { name, .. } in variables {
        if !check.used.contains(&**name) {
            let words = format!("the variable '{name}' is declared, and not in the text");
            check.problems.push(Problem { line: None, words });
        }
    }
    Checked { problems: check.problems, plain }
}

struct Check<'v, 't> {
    variables: &'v [Variable],
    used: HashSet<&'v str>,
    /// The loops that are open: what each goes by.
    loops: Vec<&'t str>,
    elifs: usize,
    problems: Vec<Problem>,
}

impl<'t> Check<'_, 't> {
    fn said(&mut self, line: u32, words: impl Into<String>) {
        let problem = Problem { line: Some(line), words: words.into() };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// One `{{ }}`, or one `{% %}` with its opening token.
    fn tag(&mut self, tokens: &[(Token<'t>, u32)]) {
        let line = tokens.first().map_or(0, |(_, line)| *line);
        if tokens.len() > MAX_TOKENS {
            return self.said(line, format!("one expression has more than {MAX_TOKENS} parts"));
        }
        let rest = match tokens {
            [(Token::BlockStart, _), rest @ ..] => rest,
            expression => return self.expression(expression),
        };
        let Some((Token::Ident(word), line)) = rest.first() else {
            return self
                .said(line, "a tag needs a word: if, elif, else, endif, for, endfor, break or continue");
        };
        match *word {
            "for" => self.opens_loop(&rest[1..], *line),
            "endfor" => drop(self.loops.pop()),
            "elif" => {
                self.elifs += 1;
                if self.elifs > MAX_ELIFS {
                    self.said(*line, format!("there are more than {MAX_ELIFS} elif"));
                }
                self.expression(&rest[1..]);
            }
            "if" => self.expression(&rest[1..]),
            "else" | "endif" | "break" | "continue" => {}
            _ => self.said(
                *line,
                format!("'{word}' is not known here; there are if, elif, else, for, break, continue"),
            ),
        }
    }

    fn opens_loop(&mut self, rest: &[(Token<'t>, u32)], line: u32) {
        let [(Token::Ident(name), _), (Token::Ident("in"), _), ..] = rest else {
            self.loops.push("");
            return self.said(line, "a loop is written 'for NAME in LIST'");
        };
        if self.variables.iter().any(|variable| &*variable.name == *name) {
            self.said(line, format!("the loop's '{name}' has the name of a variable"));
        }
        self.loops.push(name);
        self.expression(&rest[1..]);
    }

    fn expression(&mut self, tokens: &[(Token<'t>, u32)]) {
        for (at, (token, line)) in tokens.iter().enumerate() {
            let before = |back: usize| at.checked_sub(back).map(|at| &tokens[at].0);
            match token {
                Token::Ident(name) => self.ident(name, before(1), before(2), *line),
                Token::ParenOpen if ends_value(before(1)) && !names_rule(before(2), before(3)) => {
                    self.said(*line, "nothing can be called here; there are filters, such as 'name|upper'");
                }
                Token::BracketOpen if ends_value(before(1)) => {
                    self.said(
                        *line,
                        "parts of values can't be taken by [ ]; there are the filters first and last",
                    );
                }
                Token::Dot if !matches!(before(1), Some(Token::Ident("loop"))) => {
                    self.said(*line, "values have no members; only 'loop' has, such as 'loop.last'");
                }
                Token::Tilde | Token::Plus => {
                    self.said(*line, "values are joined by writing them side by side");
                }
                Token::Mul
                | Token::Pow
                | Token::Div
                | Token::FloorDiv
                | Token::Mod
                | Token::Assign
                | Token::BraceOpen
                | Token::BraceClose
                | Token::Colon => {
                    self.said(*line, format!("{token} has no use here"));
                }
                _ => {}
            }
            if matches!(token, Token::Ident("in")) {
                self.holder(tokens.get(at + 1), *line);
            }
        }
    }

    /// What stands behind `in`: a search through a long text would cost more than a step.
    fn holder(&mut self, next: Option<&(Token<'t>, u32)>, line: u32) {
        let is_list = |name: &str| {
            let declared = self.variables.iter().find(|variable| &*variable.name == name);
            // one that is not declared is said already
            declared.is_none_or(|variable| variable.kind == VariableKind::List) && !self.loops.contains(&name)
        };
        match next {
            Some((Token::BracketOpen, _)) => {}
            Some((Token::Ident(name), _)) if is_list(name) => {}
            _ => self.said(
                line,
                "behind 'in' stands a variable of the type list, or a list such as [\"a\", \"b\"]",
            ),
        }
    }

    fn ident(&mut self, name: &'t str, before: Option<&Token<'t>>, further: Option<&Token<'t>>, line: u32) {
        let negated = matches!((before, further), (Some(Token::Ident("not")), Some(Token::Ident("is"))));
        if matches!(before, Some(Token::Pipe)) {
            if !filters::FILTERS.contains(&name) {
                self.said(
                    line,
                    format!("there is no filter '{name}'; there are {}", filters::FILTERS.join(", ")),
                );
            }
        } else if name != "not" && (negated || matches!(before, Some(Token::Ident("is")))) {
            if !filters::TESTS.contains(&name) {
                self.said(
                    line,
                    format!("there is no test '{name}'; there are {}", filters::TESTS.join(", ")),
                );
            }
        } else if is_keyword(name) || matches!(before, Some(Token::Dot)) || self.loops.contains(&name) {
        } else if name == "loop" {
            if self.loops.is_empty() {
                self.said(line, "'loop' stands within a loop only");
            }
        } else if let Some(variable) = self.variables.iter().find(|variable| &*variable.name == name) {
            self.used.insert(&variable.name);
        } else {
            self.said(line, format!("'{name}' is not declared as a variable"));
        }
    }
}

/// Whether a token can be the end of a value.
fn ends_value(token: Option<&Token<'_>>) -> bool {
    match token {
        Some(Token::Ident(name)) => !is_keyword(name) || matches!(*name, "true" | "false" | "none"),
        Some(Token::ParenClose | Token::BracketClose | Token::Str(_) | Token::String(_)) => true,
        _ => false,
    }
}

/// Whether the name behind these tokens is a filter's or a test's.
fn names_rule(before: Option<&Token<'_>>, further: Option<&Token<'_>>) -> bool {
    let negated = matches!((before, further), (Some(Token::Ident("not")), Some(Token::Ident("is"))));
    negated || matches!(before, Some(Token::Pipe | Token::Ident("is")))
}
