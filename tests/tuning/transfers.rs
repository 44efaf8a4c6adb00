//! Files on their way: over HTTP/2, cut off, and a line that has no end.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::files::on_disk;
use super::{FILES, Tuner, upload};
use crate::support::{Call, Connection, Setup, TestGateway, eventually, free_port, training_rows};

const MIB: usize = 1 << 20;
/// The long line of the usual suite; `make soak` asks for longer ones by `TUNEGATE_TEST_LINE_MIB`.
const LINE_MIB: usize = 64;
/// The largest file that a gateway takes.
const FILE_MIB: usize = 512;
/// What a file on its way and its check may take of memory, whatever its length.
const MEMORY: usize = 160 * MIB;

/// A gateway with an address for HTTP/2 without TLS; the URL of that.
fn with_h2c() -> (TestGateway, String) {
    let port = free_port();
    let setup = Setup::bare().server(&format!("h2c_listen = \"127.0.0.1:{port}\""));
    (TestGateway::with(setup).start(), format!("http://127.0.0.1:{port}"))
}

/// curl that speaks HTTP/2 from the first byte.
fn curl(tuner: &Tuner<'_>) -> Command {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--max-time", "60", "--http2-prior-knowledge"])
        .args(["--header", &format!("Authorization: Bearer {}", tuner.key)]);
    command
}

/// The body of a good answer.
#[track_caller]
fn said(command: &mut Command) -> Vec<u8> {
    let output = command.args(["--write-out", "\n%{http_version} %{http_code}"]).output().expect("curl runs");
    let at = output.stdout.iter().rposition(|byte| *byte == b'\n').expect("curl's own line");
    let (body, last) = output.stdout.split_at(at);
    assert_eq!(last, b"\n2 200", "{}", String::from_utf8_lossy(&output.stdout));
    body.to_vec()
}

#[track_caller]
fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes)))
}

fn form_of(path: &Path) -> String {
    format!("file=@{};filename=train.jsonl", path.display())
}

#[test]
fn files_and_uploads_go_over_http_2() {
    let (gateway, url) = with_h2c();
    let tuner = Tuner::new(&gateway);
    // more than one window of a stream
    let rows = training_rows(30_000);
    let path = gateway.folder().join("rows.jsonl");
    fs::write(&path, &rows).expect("written");
    let files = format!("{url}{FILES}");
    let made = said(curl(&tuner).args(["--form", "purpose=fine-tune", "--form", &form_of(&path), &files]));
    let made = json_of(&made);
    assert_eq!((&made["bytes"], &made["filename"]), (&json!(rows.len()), &json!("train.jsonl")));
    let file = super::id(&made);
    assert_eq!(json_of(&said(curl(&tuner).arg(&files)))["data"][0]["id"], file);
    assert!(said(curl(&tuner).arg(format!("{files}/{file}/content"))) == rows, "as it was sent");

    let begin = json!({"filename": "big.jsonl", "purpose": "fine-tune", "bytes": rows.len(),
        "mime_type": "application/jsonl"});
    let uploads = format!("{url}/v1/uploads");
    let post =
        |target: &str, body: &Value| json_of(&said(curl(&tuner).args(["--json", &body.to_string(), target])));
    let at = format!("{uploads}/{}", super::id(&post(&uploads, &begin)));
    let parts: Vec<String> = rows
        .chunks(rows.len() / 2 + 1)
        .map(|part| {
            fs::write(&path, part).expect("written");
            let form = format!("data=@{}", path.display());
            super::id(&json_of(&said(curl(&tuner).args(["--form", &form, &format!("{at}/parts")]))))
        })
        .collect();
    let whole = post(&format!("{at}/complete"), &json!({"part_ids": parts}));
    assert_eq!(whole["status"], "completed", "{whole:#}");
    let deleted = said(curl(&tuner).args(["--request", "DELETE", &format!("{files}/{file}")]));
    assert_eq!(json_of(&deleted)["deleted"], true);
    assert_eq!(on_disk(&gateway.folder().join("state/files")).len(), 1, "the same content is kept once");
}

/// Waits until some of a file is on the disk.
#[track_caller]
fn await_some(folder: &Path) {
    eventually("some of it is on disk", || {
        let found = on_disk(folder).pop()?;
        (fs::metadata(found).ok()?.len() > MIB as u64).then_some(())
    });
}

#[test]
fn an_upload_that_is_cut_off_leaves_nothing() {
    let (gateway, url) = with_h2c();
    let tuner = Tuner::new(&gateway);
    let folder = gateway.folder().join("state/files");
    let path = gateway.folder().join("rows.jsonl");
    fs::write(&path, vec![b'\n'; 64 * MIB]).expect("written");
    let mut client = curl(&tuner)
        .args(["--limit-rate", "8M", "--form", "purpose=fine-tune", "--form", &form_of(&path)])
        .arg(format!("{url}{FILES}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("curl runs");
    await_some(&folder);
    client.kill().expect("killed");
    client.wait().expect("a child");
    eventually("nothing is left of it", || on_disk(&folder).is_empty().then_some(()));

    // and over HTTP/1.1
    let mut connection = begin(&tuner, 64 * MIB);
    connection.write(&vec![b'x'; 3 * MIB]);
    await_some(&folder);
    drop(connection);
    eventually("nothing is left of it", || on_disk(&folder).is_empty().then_some(()));
    assert_eq!(tuner.get(FILES)["data"], json!([]));
}

/// The beginning of the form with a file.
const FRONT: &str = "--X\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nfine-tune\r\n\
                     --X\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.jsonl\"\r\n\r\n";

/// The head of an upload over HTTP/1.1, with what says how long its body is.
fn head(tuner: &Tuner<'_>, framing: &str) -> String {
    format!(
        "POST {FILES} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{framing}\r\n\
         content-type: multipart/form-data; boundary=X\r\n\r\n",
        tuner.key
    )
}

/// Begins an upload that is said to go on for so many bytes.
fn begin(tuner: &Tuner<'_>, length: usize) -> Connection {
    let mut connection = Connection::to(tuner.gateway.address());
    let framing = format!("content-length: {}", FRONT.len() + length);
    connection.write((head(tuner, &framing) + FRONT).as_bytes());
    connection
}

/// One line as long as the file: it is never in memory as a whole, and the file is kept with what is wrong; one that is
/// longer than files may be is refused on its way.
#[test]
fn a_line_without_an_end_takes_no_memory() {
    let asked = std::env::var("TUNEGATE_TEST_LINE_MIB").ok().and_then(|text| text.parse().ok());
    let line_mib: usize = asked.unwrap_or(LINE_MIB);
    let gateway = TestGateway::with(Setup::bare()).start();
    let tuner = Tuner::new(&gateway);
    tuner.upload(&training_rows(10)).expect(200);
    let before = gateway.resident_bytes();
    let mut most = before;
    let back = b"\r\n--X--\r\n";
    let mut connection = Connection::to(gateway.address());
    // nobody says how long it will be
    connection.write(head(&tuner, "transfer-encoding: chunked").as_bytes());
    let mut send = |piece: &[u8]| {
        connection.write(&[format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
        most = most.max(gateway.resident_bytes());
    };
    send(FRONT.as_bytes());
    let piece = vec![b'x'; MIB];
    (0..line_mib).for_each(|_| send(&piece));
    send(back);
    connection.write(b"0\r\n\r\n");
    if line_mib > FILE_MIB {
        // who is refused so early may find the connection closed before it has read why
        if let Some(answer) = connection.last_words() {
            answer.expect_error(413, "request_too_large");
        }
    } else {
        let file = super::id(&connection.answer().expect(200).json());
        let shown = eventually("it is checked", || {
            most = most.max(gateway.resident_bytes());
            let shown = tuner.get(&format!("{FILES}/{file}"));
            (shown["status"] == "error").then_some(shown)
        });
        let words = shown["status_details"].as_str().unwrap_or_default();
        assert!(words.contains("line 1"), "{words}");
    }
    println!("{line_mib} MiB in one line: {} MiB of memory", (most - before) / MIB);
    assert!(most - before < MEMORY, "{} MiB more than before", (most - before) / MIB);
    tuner.upload(&training_rows(10)).expect(200);
}

/// What is too long is refused before all of it has come.
#[test]
fn a_file_that_is_too_long_by_its_own_word_is_refused_at_once() {
    let gateway = TestGateway::with(Setup::bare()).start();
    let tuner = Tuner::new(&gateway);
    let mut connection = begin(&tuner, 1_024 * MIB);
    let refused = connection.answer();
    assert_eq!(refused.status, 413, "{}", refused.text());
    assert!(refused.text().contains("536870912 bytes"), "{}", refused.text());
    eventually("nothing is left of it", || {
        on_disk(&gateway.folder().join("state/files")).is_empty().then_some(())
    });
    tuner.call(upload(FILES, &training_rows(10))).expect(200);
    tuner.call(Call::get(FILES)).expect(200);
}
