//! `xdpgate policy diff` of two files.

mod common;

use common::{Scratch, xdpgate};
use serde_json::Value;

const OLD: &str = "
version: 1
sets:
  bad: { entries: [203.0.113.7, 198.51.100.0/24] }
  gone: { entries: [192.0.2.1] }
rules:
  - { id: first, match: { src: '@bad' }, action: drop }
  - { id: second, match: { src: '@gone' }, action: drop }
  - { id: same, match: { protocol: udp, dport: 53 }, action: drop }
";

const NEW: &str = "
version: 1
default: drop
sets:
  bad: { entries: [203.0.113.7, '2001:db8::/32'] }
rules:
  - { id: first, match: { src: '@bad' }, action: drop, comment: 'rules: none' }
  - { id: same, priority: 30, match: { dport: [53], protocol: 17 }, action: drop }
  - { id: third, match: { protocol: tcp, dport: 23 }, action: drop }
";

#[test]
fn rules_and_entries_one_by_one() {
    let scratch = Scratch::new();
    let (old, new) = (scratch.file("old.yaml", OLD), scratch.file("new.yaml", NEW));
    let ended = xdpgate(["policy", "diff", &old, &new]);
    assert_eq!(
        (ended.code, ended.stderr.as_str()),
        (Some(1), ""),
        "{ended}"
    );
    let text = ended.stdout;
    let expected = format!(
        "--- {old}
+++ {new}
@@ policy @@
 version: 1
-default: pass
+default: drop
 malformed: pass
 failsafe: {{}}
@@ rule first @@
 id: first
 priority: 10
 match:
   src: \"@bad\"
 action: drop
+comment: \"rules: none\"
@@ rule added third @@
+id: third
+priority: 30
+match:
+  protocol: tcp
+  dport: 23
+action: drop
@@ rule removed second @@
-id: second
-priority: 20
-match:
-  src: \"@gone\"
-action: drop
@@ set bad: 1 removed, 1 added @@
 counters: none
-198.51.100.0/24
+2001:db8::/32
@@ set gone: 1 removed, 0 added @@
-counters: none
-192.0.2.1
"
    );
    assert_eq!(text, expected);
}

#[test]
fn what_is_said_otherwise_is_equal() {
    let scratch = Scratch::new();
    let a = scratch.file("a.yaml", OLD);
    let b = scratch.file("b.yaml", OLD.replace("udp, dport: 53", "17, dport: [53]"));
    assert_eq!(xdpgate(["policy", "diff", &a, &b]).ok(), "");
    let said = xdpgate(["policy", "diff", &a, &b, "--json"]).ok();
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(said["equal"], true);
}

#[test]
fn json_has_all_of_it() {
    let scratch = Scratch::new();
    let (old, new) = (scratch.file("old.yaml", OLD), scratch.file("new.yaml", NEW));
    let ended = xdpgate(["policy", "diff", &old, &new, "--json"]);
    assert_eq!(ended.code, Some(1), "{ended}");
    let said: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(said["equal"], false);
    let rules: Vec<&str> = said["rules"]
        .as_array()
        .expect("rules")
        .iter()
        .map(|r| r["id"].as_str().expect("an id"))
        .collect();
    assert_eq!(rules, ["first", "third", "second"]);
    assert_eq!(said["rules"][1]["old"], Value::Null);
    assert_eq!(said["sets"][0]["added"][0]["prefix"], "2001:db8::/32");
    assert_eq!(said["sets"][1]["new"], Value::Null);
    xdpgate(["policy", "diff", &old, "/nowhere.yaml"]).refused(2, &["/nowhere.yaml"]);
}
