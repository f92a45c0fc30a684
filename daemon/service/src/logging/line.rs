//! A record as a line.

use std::fmt::Write;

use anstyle::AnsiColor;
use jiff::Timestamp;
use log::kv::{self, Key, Value, VisitSource, VisitValue};
use log::{Level, Record};
use serde_json::value::{Map, Value as Json};

use super::{AUDIT, Place};

/// For people. The message says all that the key-values do, except in the audit log.
pub(super) fn text(record: &Record<'_>, place: Place) -> String {
    let (level, target) = (record.level(), record.target());
    let message = match target {
        AUDIT => audited(record),
        _ => record.args().to_string(),
    };
    match place {
        Place::Journal => {
            // Each line of a message is an entry of its own there.
            let priority = priority(level);
            let message = message.replace('\n', &format!("\n<{priority}>"));
            format!("<{priority}>{target}: {message}\n")
        }
        Place::Terminal => {
            let style = colour(level).on_default();
            format!("{} {style}{level:<5}{style:#} {target}: {message}\n", now())
        }
        Place::Other => format!("{} {level:<5} {target}: {message}\n", now()),
    }
}

/// For machines: one object. Key-values that are named as one of the four fields end with `_`.
pub(super) fn json(record: &Record<'_>) -> String {
    let mut more = Fields::default();
    // It fails only if the visitor does, which it does not.
    let _ = record.key_values().visit(&mut more);
    let mut line = String::from("{");
    for (name, value) in [
        ("time", now()),
        ("level", record.level().as_str().to_lowercase()),
        ("target", record.target().to_owned()),
        ("message", record.args().to_string()),
    ] {
        let comma = if line.len() > 1 { "," } else { "" };
        let _ = write!(line, "{comma}\"{name}\":{}", Json::from(value));
    }
    for (name, value) in more.0 {
        let own = matches!(&*name, "time" | "level" | "target" | "message");
        let name = if own { name + "_" } else { name };
        let _ = write!(line, ",{}:{value}", Json::from(name));
    }
    line + "}\n"
}

fn audited(record: &Record<'_>) -> String {
    let mut fields = Fields::default();
    let _ = record.key_values().visit(&mut fields);
    let mut message = record.args().to_string();
    for (name, value) in fields.0 {
        let _ = write!(message, " {name}={value}");
    }
    message
}

fn now() -> String {
    let now = Timestamp::now().as_millisecond();
    format!(
        "{:.3}",
        Timestamp::from_millisecond(now).unwrap_or_default()
    )
}

/// As in syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

fn colour(level: Level) -> AnsiColor {
    match level {
        Level::Error => AnsiColor::Red,
        Level::Warn => AnsiColor::Yellow,
        Level::Info => AnsiColor::Green,
        Level::Debug => AnsiColor::Blue,
        Level::Trace => AnsiColor::Cyan,
    }
}

/// The key-values of a record, by name.
#[derive(Default)]
struct Fields(Map<String, Json>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let mut one = One(Json::Null);
        value.visit(&mut one)?;
        self.0.insert(key.to_string(), one.0);
        Ok(())
    }
}

/// A value as JSON has it.
struct One(Json);

impl VisitValue<'_> for One {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), kv::Error> {
        self.0 = value.to_string().into();
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), kv::Error> {
        self.0 = Json::Null;
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_record<T>(target: &str, message: &str, look: impl Fn(&Record<'_>) -> T) -> T {
        let pairs = [
            ("interface", Value::from("eth\"0")),
            ("ifindex", Value::from(7u32)),
            ("level", Value::from(true)),
        ];
        let args = format_args!("{message}");
        let mut record = Record::builder();
        record.level(Level::Warn).target(target).key_values(&pairs);
        look(&record.args(args).build())
    }

    #[test]
    fn json_has_all_fields_and_is_one_line() {
        let line = with_record("xdpgated", "two\nlines \"quoted\"", json);
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        let object: Json = serde_json::from_str(&line).unwrap();
        assert_eq!(object["message"], "two\nlines \"quoted\"");
        assert_eq!(object["level"], "warn");
        assert_eq!(object["target"], "xdpgated");
        assert_eq!(object["interface"], "eth\"0");
        assert_eq!(object["ifindex"], 7);
        assert_eq!(object["level_"], true);
        let time = object["time"].as_str().unwrap();
        let age = Timestamp::now().as_second() - time.parse::<Timestamp>().unwrap().as_second();
        assert!((0..60).contains(&age), "{time}");
    }

    #[test]
    fn the_journal_is_told_the_priority_and_no_time() {
        let line = with_record("xdpgated", "one\ntwo", |r| text(r, Place::Journal));
        assert_eq!(line, "<4>xdpgated: one\n<4>two\n");
        let line = with_record("xdpgated", "one", |r| text(r, Place::Other));
        assert!(line.ends_with(" WARN  xdpgated: one\n"), "{line}");
    }

    #[test]
    fn the_audit_log_has_its_key_values_in_text() {
        let line = with_record(AUDIT, "apply", |r| text(r, Place::Journal));
        assert!(line.starts_with("<4>audit: apply "), "{line}");
        assert!(line.contains(" ifindex=7"), "{line}");
    }
}
