//! A YAML document as a tree that knows its positions.
//!
//! The part of YAML that configuration needs: mappings with plain keys, lists and scalars, one
//! document. Anchors, aliases and tags are left as [`Value::Extra`], which no reader takes: what
//! stands in the text is what is meant, and a small text stays small.

use std::borrow::Cow;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput};

use super::super::error::{PolicyError, PolicyErrorKind, Position};

use PolicyErrorKind::{NotSupported, Syntax, WrongType};

/// Nothing in the format is nested more than half as deep.
const MAX_DEPTH: usize = 16;

/// A value and where it starts.
#[derive(Debug)]
pub(super) struct Node<'a> {
    pub(super) position: Position,
    pub(super) value: Value<'a>,
}

/// What a node is.
#[derive(Debug)]
pub(super) enum Value<'a> {
    /// Nothing, `~` or `null`.
    Null,
    /// Text, numbers and truth values, all as text.
    Scalar(Cow<'a, str>),
    List(Vec<Node<'a>>),
    /// In the order of the text; a key may be there twice.
    Map(Vec<Entry<'a>>),
    /// What the format leaves out, by its sign: `&`, `*` or `!`.
    Extra(char),
}

/// A key and its value.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) key: Cow<'a, str>,
    pub(super) position: Position,
    pub(super) node: Node<'a>,
}

/// The tree of the only document in `text`.
pub(super) fn parse(text: &str) -> Result<Node<'_>, PolicyError> {
    let mut builder = Builder {
        parser: Parser::new_from_str(text),
        text,
    };
    loop {
        match builder.next()? {
            (Event::StreamStart | Event::Nothing, _) => {}
            (Event::DocumentStart(_), _) => break,
            _ => {
                return Err(PolicyError::new(Syntax, "the policy is empty")
                    .mend("start with `version: 1`")
                    .at(Position { line: 1, column: 1 }));
            }
        }
    }
    let (event, span) = builder.next()?;
    let root = builder.node(event, &span, 0)?;
    loop {
        match builder.next()? {
            (Event::StreamEnd, _) => return Ok(root),
            (Event::DocumentStart(_), span) => {
                return Err(PolicyError::new(Syntax, "a second document in the file")
                    .mend("one file is one policy")
                    .at(position(&span.start)));
            }
            _ => {}
        }
    }
}

struct Builder<'a> {
    parser: Parser<'a, StrInput<'a>>,
    text: &'a str,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), PolicyError> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(self.syntax(&error)),
            // The parser ends with `StreamEnd`, after which nothing is asked.
            None => Ok((Event::StreamEnd, Span::empty(Marker::new(0, 1, 0)))),
        }
    }

    fn node(
        &mut self,
        event: Event<'a>,
        span: &Span,
        depth: usize,
    ) -> Result<Node<'a>, PolicyError> {
        let position = position(&span.start);
        if depth > MAX_DEPTH {
            let reason = format!("nested more than {MAX_DEPTH} deep");
            return Err(PolicyError::new(Syntax, reason).at(position));
        }
        let extra = match event {
            Event::Alias(_) => Some('*'),
            Event::Scalar(.., Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => Some('!'),
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(anchor, _)
            | Event::MappingStart(anchor, _)
                if anchor != 0 =>
            {
                Some('&')
            }
            _ => None,
        };
        let value = match event {
            Event::Scalar(text, style, ..) => match (style, &*text) {
                (ScalarStyle::Plain, "" | "~" | "null") => Value::Null,
                _ => Value::Scalar(text),
            },
            Event::SequenceStart(..) => Value::List(self.list(depth)?),
            Event::MappingStart(..) => Value::Map(self.map(depth)?),
            _ => Value::Null,
        };
        Ok(Node {
            position,
            value: extra.map_or(value, Value::Extra),
        })
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node<'a>>, PolicyError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => items.push(self.node(event, &span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<Entry<'a>>, PolicyError> {
        // Of large texts most mappings are entries of sets, which have two keys.
        let mut entries = Vec::with_capacity(2);
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(entries);
            }
            let Node { position, value } = self.node(event, &span, depth + 1)?;
            let Value::Scalar(key) = value else {
                return Err(PolicyError::new(WrongType, "a key must be a word").at(position));
            };
            let (event, span) = self.next()?;
            let mut node = self.node(event, &span, depth + 1)?;
            if matches!(node.value, Value::Null) {
                // Where nothing stands, the parser's position is that of the next thing.
                node.position = position;
            }
            entries.push(Entry {
                key,
                position,
                node,
            });
        }
    }

    fn syntax(&self, error: &ScanError) -> PolicyError {
        let start = error.marker();
        let found = self.char_at(start);
        let error = match found {
            Some(sign @ ('*' | '&' | '!')) => extra(sign),
            _ => {
                let reason = format!("not YAML: {}", error.info().replace('\n', " "));
                PolicyError::new(Syntax, reason)
            }
        };
        match found {
            Some(c @ ('@' | '`' | '%')) => error.mend(quote_it(c)),
            Some('\t') => error.mend("indent with blanks"),
            _ => error,
        }
        .at(position(start))
    }

    /// Only for errors: it walks the text.
    fn char_at(&self, at: &Marker) -> Option<char> {
        self.text
            .lines()
            .nth(at.line().checked_sub(1)?)?
            .chars()
            .nth(at.col())
    }
}

/// Text that starts like a part of YAML which the format leaves out.
pub(super) fn extra(sign: char) -> PolicyError {
    let what = match sign {
        '*' => "an alias",
        '&' => "an anchor",
        _ => "a tag",
    };
    PolicyError::new(NotSupported, format!("{what}, which a policy cannot have"))
        .mend(quote_it(sign))
}

fn quote_it(first: char) -> String {
    format!("quote text that starts with {first}")
}

fn position(marker: &Marker) -> Position {
    Position {
        line: marker.line(),
        column: marker.col() + 1,
    }
}
