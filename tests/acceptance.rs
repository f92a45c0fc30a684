//! `docs/acceptance.md` names tests: each is there, in the file that it says.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = "docs/acceptance.md";
/// Where a name like `root_rows` or `kernel::attach` is looked for, in this order.
const ROOTS: &[&str] = &[
    "tests",
    "daemon/tests",
    "src",
    "daemon/src",
    "daemon/api/tests",
    "controller/tests",
    "controller/src",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files and the functions of each.
type Files<'f> = Vec<(&'f PathBuf, &'f Vec<String>)>;

/// The functions that each Rust file has, by the file's path from the root.
fn functions() -> BTreeMap<PathBuf, Vec<String>> {
    fn gather(dir: &Path, found: &mut BTreeMap<PathBuf, Vec<String>>) {
        for entry in fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                gather(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).expect("UTF-8");
                let names = text.lines().filter_map(|line| {
                    let (before, name) = line.split_once("fn ")?;
                    let is_item = before.is_empty() || before.ends_with([' ', '\t']);
                    let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
                    is_item.then(|| name[..end].to_owned())
                });
                let file = path
                    .strip_prefix(root())
                    .expect("below the root")
                    .to_owned();
                found.insert(file, names.collect());
            }
        }
    }
    let mut found = BTreeMap::new();
    ROOTS
        .iter()
        .for_each(|dir| gather(&root().join(dir), &mut found));
    found
}

/// What stands between backticks, with the line it is in.
fn quoted(page: &str) -> Vec<(usize, &str)> {
    let lines = page.lines().enumerate();
    lines
        .flat_map(|(n, line)| line.split('`').skip(1).step_by(2).map(move |w| (n + 1, w)))
        .collect()
}

/// Whether the word is about a test: a path of Rust, a file of tests, or a name with a row.
fn names_a_test(word: &str) -> bool {
    let is_row = |w: &str| {
        let digits = w
            .strip_prefix('r')
            .map(|w| w.chars().take_while(char::is_ascii_digit));
        digits.is_some_and(|digits| digits.count() >= 2)
    };
    let is_file = word.contains("tests/") && word.contains(".rs");
    let is_name = word.contains("::") || word.starts_with("root_") || is_row(word);
    !word.contains(' ') && (is_file || is_name && !word.contains(['/', '.', '(']))
}

/// `*` stands for any end, or at the beginning for any beginning.
fn fits(pattern: &str, name: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(rest), _) => name.contains(rest.trim_end_matches('*')),
        (None, Some(start)) => name.starts_with(start),
        (None, None) => name == pattern,
    }
}

/// The files that a name without its last part may mean: `root_rows`, `daemon/tests/root_cli.rs`,
/// `kernel::auto::decide`.
fn files<'f>(name: &str, all: &'f BTreeMap<PathBuf, Vec<String>>) -> Files<'f> {
    let path = name.trim_end_matches(".rs").replace("::", "/");
    // Unit tests are in `mod tests` of their file, or in a file beside it.
    let path = path.trim_end_matches("/tests");
    let is_whole = ["tests/", "daemon/", "controller/"]
        .iter()
        .any(|dir| path.starts_with(dir));
    let roots = if is_whole { &[""] } else { ROOTS };
    let is_meant = |file: &Path| {
        let mut places = roots.iter().map(|dir| Path::new(dir).join(path));
        places.any(|place| file == place.with_extension("rs") || file.starts_with(&place))
    };
    all.iter().filter(|(file, _)| is_meant(file)).collect()
}

/// Every fault of the page: a name that is about a test and that nothing has.
fn faults(page: &str, all: &BTreeMap<PathBuf, Vec<String>>) -> Vec<String> {
    let mut faults = Vec::new();
    let mut last: Option<(usize, Files<'_>)> = None;
    for (line, word) in quoted(page) {
        if !names_a_test(word) {
            continue;
        }
        let whole = files(word, all);
        if !whole.is_empty() {
            last = Some((line, whole));
            continue;
        }
        let (places, function) = match word.rsplit_once("::") {
            Some((file, function)) => (files(file, all), function),
            // A name alone is of the file that was named last in this line.
            None => match &last {
                Some((at, files)) if *at == line => (files.clone(), word),
                _ => (Vec::new(), word),
            },
        };
        let has = |names: &Vec<String>| names.iter().any(|name| fits(function, name));
        if !places.iter().any(|(_, names)| has(names)) {
            faults.push(format!("{PAGE}:{line}: `{word}`: there is no such test"));
        }
        if !places.is_empty() {
            last = Some((line, places));
        }
    }
    faults
}

#[test]
fn every_test_that_the_page_names_is_there() {
    let page = fs::read_to_string(root().join(PAGE)).expect("the page");
    let all = functions();
    let named = quoted(&page)
        .iter()
        .filter(|(_, w)| names_a_test(w))
        .count();
    assert!(named > 200, "only {named} tests are named");
    let faults = faults(&page, &all);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_name_that_nothing_has_is_noticed() {
    let all = functions();
    for good in [
        "`oracle::r01_exact_ipv4`, `r03_ports`",
        "`root_rows::r21_*`",
        "`daemon/tests/root_cli.rs::r72_*`",
        "`root_python::r70_every_method_from_python`",
        "`kernel::auto::decide::tests::r53_*`",
        "`tests/kernels`, `make test-deb`, `0.0.0.0/0`, `protocol: all`",
    ] {
        assert_eq!(faults(good, &all), [""; 0]);
    }
    for bad in [
        "`oracle::r01_exact_ipv9`",
        "`oracle::r01_exact_ipv4`, `r77_ports`",
        "`root_nothing`",
        "`root_rows::r99_*`",
        "`daemon/tests/root_nothing.rs`",
        "`kernel::auto::decide::tests::r99_*`",
        "`r01_exact_ipv4`",
    ] {
        assert_eq!(faults(bad, &all).len(), 1, "{bad}");
    }
}
