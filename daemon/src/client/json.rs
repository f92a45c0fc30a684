//! Messages of the API as JSON.
//!
//! The descriptor says which fields there are, so none is left out: a field that is not set is
//! `null`, an empty list is `[]`. Names are those of the `.proto`. Values of enums are lower case and
//! without the name of the enum: `MODE_DRY_RUN` of `Mode` is `"dry_run"`, the one that says nothing is
//! `null`. Times are RFC 3339, durations are seconds, bytes are hexadecimal digits, and integers are
//! exact.

use std::sync::LazyLock;

use jiff::Timestamp;
use prost::{Message, Name};
use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, ReflectMessage,
    Value as Reflected,
};
use serde_json::{Map, Number, Value};

use crate::Failure;

static POOL: LazyLock<Result<DescriptorPool, String>> = LazyLock::new(|| {
    DescriptorPool::decode(xdpgate_api::v1::FILE_DESCRIPTOR_SET).map_err(|e| e.to_string())
});

/// A message as a JSON object.
pub(super) fn of<M: Message + Name>(message: &M) -> Result<Value, Failure> {
    let pool = POOL.as_ref().map_err(Failure::operation)?;
    let name = M::full_name();
    let descriptor = pool
        .get_message_by_name(&name)
        .ok_or_else(|| Failure::operation(format!("the API has no message {name}")))?;
    let bytes = message.encode_to_vec();
    let dynamic =
        DynamicMessage::decode(descriptor, bytes.as_slice()).map_err(Failure::operation)?;
    Ok(object(&dynamic))
}

fn object(message: &DynamicMessage) -> Value {
    match message.descriptor().full_name() {
        "google.protobuf.Timestamp" => time(message),
        "google.protobuf.Duration" => seconds(message),
        _ => Value::Object(
            message
                .descriptor()
                .fields()
                .map(|field| (field.name().to_owned(), member(message, &field)))
                .collect::<Map<String, Value>>(),
        ),
    }
}

fn member(message: &DynamicMessage, field: &FieldDescriptor) -> Value {
    if field.supports_presence() && !message.has_field(field) {
        return Value::Null;
    }
    value(&message.get_field(field), &field.kind())
}

fn value(said: &Reflected, kind: &Kind) -> Value {
    match said {
        Reflected::Bool(it) => Value::Bool(*it),
        Reflected::I32(it) => Value::from(*it),
        Reflected::I64(it) => Value::from(*it),
        Reflected::U32(it) => Value::from(*it),
        Reflected::U64(it) => Value::from(*it),
        Reflected::F32(it) => number(f64::from(*it)),
        Reflected::F64(it) => number(*it),
        Reflected::String(it) => Value::String(it.clone()),
        Reflected::Bytes(it) => Value::String(hex(it)),
        Reflected::EnumNumber(it) => match kind {
            Kind::Enum(of) => enumerated(*it, of),
            _ => Value::from(*it),
        },
        Reflected::Message(it) => object(it),
        Reflected::List(all) => all.iter().map(|one| value(one, kind)).collect(),
        Reflected::Map(all) => all
            .iter()
            .map(|(key, one)| (map_key(key), value(one, kind)))
            .collect(),
    }
}

/// The name of a value, in lower case and without that of its enum. A number stands for one that
/// only a newer daemon knows.
fn enumerated(number: i32, of: &EnumDescriptor) -> Value {
    let Some(named) = of.get_value(number) else {
        return Value::from(number);
    };
    let name = named.name().to_lowercase();
    let own = snake(of.name()) + "_";
    match name.strip_prefix(&own).unwrap_or(&name) {
        "unspecified" => Value::Null,
        short => Value::String(short.to_owned()),
    }
}

/// `BanScope` as `ban_scope`.
fn snake(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

fn parts(message: &DynamicMessage) -> (i64, i32) {
    let seconds = message.get_field_by_name("seconds");
    let nanos = message.get_field_by_name("nanos");
    (
        seconds.and_then(|s| s.as_i64()).unwrap_or_default(),
        nanos.and_then(|n| n.as_i32()).unwrap_or_default(),
    )
}

fn time(message: &DynamicMessage) -> Value {
    let (seconds, nanos) = parts(message);
    match Timestamp::new(seconds, nanos) {
        Ok(time) => Value::String(time.to_string()),
        Err(_) => Value::Null,
    }
}

fn seconds(message: &DynamicMessage) -> Value {
    let (seconds, nanos) = parts(message);
    match nanos {
        0 => Value::from(seconds),
        _ => number(seconds as f64 + f64::from(nanos) / 1e9),
    }
}

fn number(it: f64) -> Value {
    Number::from_f64(it).map_or(Value::Null, Value::Number)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn map_key(key: &MapKey) -> String {
    match key {
        MapKey::String(it) => it.clone(),
        MapKey::Bool(it) => it.to_string(),
        MapKey::I32(it) => it.to_string(),
        MapKey::I64(it) => it.to_string(),
        MapKey::U32(it) => it.to_string(),
        MapKey::U64(it) => it.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use xdpgate_api::v1::{
        Attachment, BanInfo, BanScope, EnableRule, Event, GetStatusResponse, Mode, Pending, change,
        pending,
    };

    use super::{POOL, of};

    #[test]
    fn values_are_exact_and_names_are_short() {
        let ban = BanInfo {
            prefix: "203.0.113.7".to_owned(),
            scope: BanScope::Both.into(),
            expires: Some(prost_types::Timestamp {
                seconds: 1_893_456_000,
                nanos: 500_000_000,
            }),
            packets: u64::MAX,
        };
        assert_eq!(
            of(&ban).unwrap(),
            json!({
                "prefix": "203.0.113.7",
                "scope": "both",
                "expires": "2030-01-01T00:00:00.5Z",
                "packets": u64::MAX,
            })
        );
        let pending = Pending {
            what: Some(pending::What::PreviousMode(Mode::DryRun.into())),
            deadline: None,
            refused: None,
        };
        assert_eq!(
            of(&pending).unwrap(),
            json!({
                "policy_generation": null,
                "previous_mode": "dry_run",
                "deadline": null,
                "refused": null,
            })
        );
        let event = Event {
            data: vec![0, 0xff],
            ..Default::default()
        };
        assert_eq!(of(&event).unwrap()["data"], "00ff");
        assert_eq!(of(&event).unwrap()["source_port"], Value::Null);
        let change = xdpgate_api::v1::Change {
            change: Some(change::Change::EnableRule(EnableRule {
                id: "r".to_owned(),
                enabled: false,
            })),
        };
        assert_eq!(
            of(&change).unwrap()["enable_rule"],
            json!({ "id": "r", "enabled": false })
        );
    }

    /// Every field of every message of the descriptor is in the JSON of that message, set or not.
    #[test]
    fn no_field_is_left_out() {
        let pool = POOL.as_ref().unwrap();
        let mut messages = 0;
        for message in pool.all_messages() {
            if message.package_name() != "xdpgate.v1" {
                continue;
            }
            let empty = super::object(&prost_reflect::DynamicMessage::new(message.clone()));
            let mut names: Vec<&String> = empty.as_object().unwrap().keys().collect();
            let mut fields: Vec<String> = message.fields().map(|f| f.name().to_owned()).collect();
            names.sort();
            fields.sort();
            assert!(
                names.iter().copied().eq(&fields),
                "{}: {names:?}",
                message.full_name()
            );
            messages += 1;
        }
        assert!(messages > 70, "{messages}");
        let status = of(&GetStatusResponse {
            attachments: vec![Attachment::default()],
            ..Default::default()
        });
        assert_eq!(status.unwrap()["attachments"][0]["fell_back"], Value::Null);
    }
}
