//! The API of today keeps what was promised: `xdpgate.v1.txt` lists all that clients depend on.
//!
//! What is taken away, renumbered or retyped is refused. What is new is added to the list by
//! `XDPGATE_BLESS=1 cargo test -p xdpgate-api --test compatibility`.

use std::collections::BTreeSet;
use std::path::Path;

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    ServiceDescriptorProto,
};
use xdpgate_api::v1::FILE_DESCRIPTOR_SET;

const LIST: &str = "xdpgate.v1.txt";

fn file() -> FileDescriptorProto {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("a descriptor");
    let ours = |file: &FileDescriptorProto| file.package() == "xdpgate.v1";
    set.file.into_iter().find(ours).expect("our file")
}

/// A line for everything that a client may depend on.
fn listed(file: &FileDescriptorProto) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for message in &file.message_type {
        list_message(&mut lines, "", message);
    }
    for values in &file.enum_type {
        list_enum(&mut lines, "", values);
    }
    for service in &file.service {
        list_service(&mut lines, service);
    }
    lines
}

fn list_message(lines: &mut BTreeSet<String>, within: &str, message: &DescriptorProto) {
    let name = format!("{within}{}", message.name());
    lines.insert(format!("message {name}"));
    for field in &message.field {
        let repeated = match field.label() {
            Label::Repeated => "repeated ",
            _ => "",
        };
        let kind = match field.r#type() {
            Type::Message | Type::Enum => field.type_name().to_owned(),
            kind => kind
                .as_str_name()
                .trim_start_matches("TYPE_")
                .to_lowercase(),
        };
        let alternative = match field.oneof_index {
            Some(_) if field.proto3_optional() => " optional".to_owned(),
            Some(index) => format!(" of {}", message.oneof_decl[index as usize].name()),
            None => String::new(),
        };
        lines.insert(format!(
            "field {name}.{} = {} {repeated}{kind}{alternative}",
            field.name(),
            field.number()
        ));
    }
    for inner in &message.nested_type {
        list_message(lines, &format!("{name}."), inner);
    }
    for inner in &message.enum_type {
        list_enum(lines, &format!("{name}."), inner);
    }
}

fn list_enum(lines: &mut BTreeSet<String>, within: &str, values: &EnumDescriptorProto) {
    for value in &values.value {
        let (name, number) = (value.name(), value.number());
        lines.insert(format!("enum {within}{}.{name} = {number}", values.name()));
    }
}

fn list_service(lines: &mut BTreeSet<String>, service: &ServiceDescriptorProto) {
    for method in &service.method {
        let stream = |is: bool| if is { "stream " } else { "" };
        lines.insert(format!(
            "rpc {}.{}({}{}) returns ({}{})",
            service.name(),
            method.name(),
            stream(method.client_streaming()),
            method.input_type(),
            stream(method.server_streaming()),
            method.output_type()
        ));
    }
}

/// What was promised and is not kept.
fn broken<'p>(promised: &'p BTreeSet<String>, today: &'p BTreeSet<String>) -> Vec<&'p String> {
    promised.difference(today).collect()
}

#[test]
fn what_was_promised_is_kept() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(LIST);
    let today = listed(&file());
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let promised: BTreeSet<String> = text.lines().map(str::to_owned).collect();
    let broken = broken(&promised, &today);
    assert!(
        broken.is_empty(),
        "clients of today would break: version 1 is extended, never changed:\n{broken:#?}"
    );
    let new: Vec<_> = today.difference(&promised).collect();
    if std::env::var_os("XDPGATE_BLESS").is_some() {
        let text: String = today.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&path, text).expect("the list");
        return;
    }
    assert!(
        new.is_empty(),
        "new, and from now on a promise: add it by XDPGATE_BLESS=1 cargo test -p xdpgate-api --test \
         compatibility\n{new:#?}"
    );
}

#[test]
fn what_breaks_a_client_is_seen() {
    let message = |file: &mut FileDescriptorProto, name: &str| {
        let mut all = file.message_type.iter();
        all.position(|m| m.name() == name).expect("a message")
    };
    type Spoil = Box<dyn Fn(&mut FileDescriptorProto)>;
    let on_field = |spoil: fn(&mut DescriptorProto)| -> Spoil {
        Box::new(move |file| {
            let place = message(file, "BanInfo");
            spoil(&mut file.message_type[place]);
        })
    };
    let rows: [(&str, Spoil); 11] = [
        ("a field is gone", on_field(|m| drop(m.field.remove(0)))),
        ("renumbered", on_field(|m| m.field[0].number = Some(99))),
        (
            "renamed",
            on_field(|m| m.field[0].name = Some("net".into())),
        ),
        (
            "retyped",
            on_field(|m| m.field[3].r#type = Some(Type::Int32.into())),
        ),
        (
            "repeated",
            on_field(|m| m.field[0].label = Some(Label::Repeated.into())),
        ),
        (
            "another message",
            on_field(|m| m.field[2].type_name = Some(".xdpgate.v1.Rule".into())),
        ),
        (
            "a message is gone",
            Box::new(|file| drop(file.message_type.remove(3))),
        ),
        (
            "a value is gone",
            Box::new(|file| drop(file.enum_type[0].value.pop())),
        ),
        (
            "a value is renumbered",
            Box::new(|file| file.enum_type[0].value[1].number = Some(77)),
        ),
        (
            "a method is gone",
            Box::new(|file| drop(file.service[0].method.pop())),
        ),
        (
            "a method streams",
            Box::new(|file| file.service[0].method[0].server_streaming = Some(true)),
        ),
    ];
    let promised = listed(&file());
    for (what, spoil) in rows {
        let mut spoilt = file();
        spoil(&mut spoilt);
        let today = listed(&spoilt);
        assert!(!broken(&promised, &today).is_empty(), "{what}");
    }
    // What is new breaks nobody.
    let mut extended = file();
    let place = message(&mut extended, "BanInfo");
    let mut field = extended.message_type[place].field[0].clone();
    (field.name, field.number) = (Some("note".into()), Some(100));
    extended.message_type[place].field.push(field);
    let today = listed(&extended);
    assert!(broken(&promised, &today).is_empty());
    assert!(today.len() > promised.len());
}

/// The `.proto` file is the reference: nothing in it is without a word.
#[test]
fn everything_has_a_comment() {
    let file = file();
    let info = file.source_code_info.as_ref().expect("source info");
    let commented: BTreeSet<&[i32]> = info
        .location
        .iter()
        .filter(|location| !location.leading_comments().trim().is_empty())
        .map(|location| &*location.path)
        .collect();
    let mut all: Vec<(Vec<i32>, String)> = Vec::new();
    for (i, message) in (0..).zip(&file.message_type) {
        places_of_message(&mut all, vec![4, i], message);
    }
    for (i, values) in (0..).zip(&file.enum_type) {
        places_of_enum(&mut all, vec![5, i], values);
    }
    for (i, service) in (0..).zip(&file.service) {
        all.push((vec![6, i], service.name().to_owned()));
        for (j, method) in (0..).zip(&service.method) {
            all.push((vec![6, i, 2, j], method.name().to_owned()));
        }
    }
    assert!(all.len() > 300, "{}", all.len());
    let bare: Vec<&str> = all
        .iter()
        .filter(|(path, _)| !commented.contains(&path[..]))
        .map(|(_, name)| name.as_str())
        .collect();
    assert_eq!(bare, [""; 0], "without a comment");
}

fn places_of_message(all: &mut Vec<(Vec<i32>, String)>, path: Vec<i32>, message: &DescriptorProto) {
    let at = |more: [i32; 2]| [&path[..], &more].concat();
    for (i, field) in (0..).zip(&message.field) {
        all.push((at([2, i]), format!("{}.{}", message.name(), field.name())));
    }
    for (i, inner) in (0..).zip(&message.nested_type) {
        places_of_message(all, at([3, i]), inner);
    }
    for (i, inner) in (0..).zip(&message.enum_type) {
        places_of_enum(all, at([4, i]), inner);
    }
    all.push((path, message.name().to_owned()));
}

fn places_of_enum(all: &mut Vec<(Vec<i32>, String)>, path: Vec<i32>, values: &EnumDescriptorProto) {
    for (i, value) in (0..).zip(&values.value) {
        all.push(([&path[..], &[2, i]].concat(), value.name().to_owned()));
    }
    all.push((path, values.name().to_owned()));
}
