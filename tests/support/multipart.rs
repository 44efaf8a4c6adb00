//! `multipart/form-data`: what clients send when they upload a file, and how a server reads it.

/// One part of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) name: String,
    /// Nothing for a plain member.
    pub(crate) filename: Option<String>,
    pub(crate) bytes: Vec<u8>,
}

/// A form that is being written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Form(Vec<u8>);

/// Between the parts.
const BOUNDARY: &str = "tunegate-test-7MA4YWxkTrZu0gW";

impl Form {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a plain member.
    pub(crate) fn field(mut self, name: &str, value: &str) -> Self {
        let head =
            format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        self.0.extend_from_slice(head.as_bytes());
        self
    }

    /// Adds a file.
    pub(crate) fn file(mut self, name: &str, filename: &str, bytes: &[u8]) -> Self {
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{filename}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        self.0.extend_from_slice(head.as_bytes());
        self.0.extend_from_slice(bytes);
        self.0.extend_from_slice(b"\r\n");
        self
    }

    /// The content type of the whole.
    pub(crate) fn content_type(&self) -> String {
        format!("multipart/form-data; boundary={BOUNDARY}")
    }

    /// The whole, with its end.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        [self.0.as_slice(), format!("--{BOUNDARY}--\r\n").as_bytes()].concat()
    }
}

/// Takes a form apart; nothing when it is none.
pub(crate) fn parts(content_type: &str, body: &[u8]) -> Option<Vec<Part>> {
    let boundary = attribute(content_type, "boundary")?;
    let (first, between) = (format!("--{boundary}"), format!("\r\n--{boundary}"));
    let mut rest = body.get(find(body, first.as_bytes())? + first.len()..)?;
    let mut parts = Vec::new();
    while let Some(part) = rest.strip_prefix(b"\r\n") {
        let end = find(part, between.as_bytes())?;
        parts.push(one(&part[..end])?);
        rest = &part[end + between.len()..];
    }
    rest.starts_with(b"--").then_some(parts)
}

fn one(part: &[u8]) -> Option<Part> {
    let head_end = find(part, b"\r\n\r\n")?;
    let head = std::str::from_utf8(&part[..head_end]).ok()?;
    let disposition =
        head.lines().find(|line| line.to_ascii_lowercase().starts_with("content-disposition:"))?;
    Some(Part {
        name: attribute(disposition, "name")?,
        filename: attribute(disposition, "filename"),
        bytes: part[head_end + 4..].to_vec(),
    })
}

/// `name=value` or `name="value"` behind a semicolon.
fn attribute(header: &str, name: &str) -> Option<String> {
    header.split(';').skip(1).find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"').to_owned())
    })
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, wanted)
}

#[test]
fn a_form_is_read_as_it_was_written() {
    let bytes = b"one\r\n--two\r\n\0\xff";
    let form = Form::new().field("purpose", "fine-tune").file("file", "train.jsonl", bytes);
    let read = parts(&form.content_type(), &form.bytes()).expect("a form");
    let part = |name: &str, filename: Option<&str>, bytes: &[u8]| Part {
        name: name.to_owned(),
        filename: filename.map(str::to_owned),
        bytes: bytes.to_vec(),
    };
    assert_eq!(read, [part("purpose", None, b"fine-tune"), part("file", Some("train.jsonl"), bytes)]);
    assert_eq!(parts("multipart/form-data; boundary=other", &form.bytes()), None);
    assert_eq!(parts(&form.content_type(), &form.bytes()[..60]), None);
}
