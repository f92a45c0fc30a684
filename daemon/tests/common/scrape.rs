//! Reading what a daemon tells over HTTP.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// Asks for a path at a Unix socket.
#[track_caller]
pub fn get(socket: &Path, path: &str) -> Answer {
    ask(UnixStream::connect(socket).expect("it listens"), path)
}

/// Asks for a path on a connection.
#[track_caller]
pub fn ask(mut stream: impl Read + Write, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    Answer {
        status: status.expect("a status"),
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}

/// Metrics at one moment.
#[derive(Debug, Clone)]
pub struct Scrape {
    pub text: String,
    samples: BTreeMap<(String, BTreeMap<String, String>), f64>,
}

impl Scrape {
    #[track_caller]
    pub fn of(socket: &Path) -> Self {
        let answer = get(socket, "/metrics");
        assert_eq!(answer.status, 200, "{answer:?}");
        Self::parse(answer.body)
    }

    #[track_caller]
    pub fn parse(text: String) -> Self {
        let lines = text
            .lines()
            .filter(|l| !l.is_empty() && !l.starts_with('#'));
        let samples = lines.map(sample).collect();
        Self { text, samples }
    }

    /// A sample by exactly these labels; 0 if there is none.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).unwrap_or(0.0)
    }

    pub fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let key = (name.to_owned(), labels.collect());
        self.samples.get(&key).copied()
    }

    /// The samples of a name: labels and value.
    pub fn all<'s>(
        &'s self,
        name: &'s str,
    ) -> impl Iterator<Item = (&'s BTreeMap<String, String>, f64)> + 's {
        let samples = self.samples.iter().filter(move |((n, _), _)| n == name);
        samples.map(|((_, labels), value)| (labels, *value))
    }

    /// The metrics by name, as `# TYPE` has them: name and type.
    pub fn types(&self) -> BTreeMap<String, String> {
        let types = self.text.lines().filter_map(|l| l.strip_prefix("# TYPE "));
        let words = types.filter_map(|l| l.split_once(' '));
        words.map(|(n, t)| (n.to_owned(), t.to_owned())).collect()
    }

    /// The labels of a metric, without that of buckets.
    pub fn labels(&self, metric: &str) -> BTreeSet<String> {
        let parts = ["", "_bucket", "_sum", "_count"].map(|end| format!("{metric}{end}"));
        let own = self.samples.keys().filter(|(name, _)| parts.contains(name));
        let labels = own.flat_map(|(_, labels)| labels.keys().cloned());
        labels.filter(|l| l != "le").collect()
    }
}

#[track_caller]
fn sample(line: &str) -> ((String, BTreeMap<String, String>), f64) {
    let (series, value) = line.rsplit_once(' ').expect("a value");
    let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
    let Some((name, labels)) = series.split_once('{') else {
        return ((series.to_owned(), BTreeMap::new()), value);
    };
    let labels = labels.strip_suffix('}').expect("labels");
    // No test has a name with a comma or a quotation mark in it.
    let pairs = labels.split(',').filter(|p| !p.is_empty());
    let pair = |p: &str| {
        let (key, value) = p.split_once('=').expect("a label");
        (key.to_owned(), value.trim_matches('"').to_owned())
    };
    ((name.to_owned(), pairs.map(pair).collect()), value)
}

/// Waits until a path answers with this status, and gives what it says.
#[track_caller]
pub fn wait_for_status(socket: &Path, path: &str, status: u16) -> String {
    super::wait_for(&format!("{path} to be {status}"), || {
        let answer = get(socket, path);
        (answer.status == status).then_some(answer.body)
    })
}
