//! `xdpgate set import`: a list, streamed.

use std::fs;
use std::io::{self, IsTerminal, Read};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use xdpgate::policy::{self, ListError, Prefix, SetName};
use xdpgate_api::v1::{
    ImportSetHeader, ImportSetRequest, ImportSetResponse, SetEntries, import_set_header,
    import_set_request,
};

use super::args::Remote;
use super::change::{self as changes, Guard};
use super::out::answer;
use super::remote;
use crate::Failure;

#[derive(Debug, Args)]
#[command(after_help = "\
The list has one address or prefix a line; what follows it behind a blank, comma or semicolon, empty
lines, and lines that start with # or ; are left out. The set is changed in one step when all is
there: if the connection breaks, or not all has come, nothing has changed.

Examples:
  xdpgate set import feed list.txt
  curl -s https://example.org/drop.txt | xdpgate set import feed - --confirm-within 60s
  xdpgate set import feed gone.txt --remove")]
pub(super) struct Import {
    /// The set; it is made if it is not there, unless with --add or --remove
    pub name: String,
    /// The list, or - for stdin
    pub file: PathBuf,
    /// The set has these entries and no others (the default)
    #[arg(long, conflicts_with_all = ["add", "remove"])]
    pub replace: bool,
    /// They come to those that the set has
    #[arg(long, conflicts_with = "remove")]
    pub add: bool,
    /// They are taken out of the set
    #[arg(long)]
    pub remove: bool,
    /// Each entry counts its hits
    #[arg(long, conflicts_with_all = ["add", "remove"])]
    pub count_entries: bool,
    #[command(flatten)]
    pub guard: Guard,
    #[command(flatten)]
    pub remote: Remote,
}

pub(super) fn run(args: &Import) -> Result<(), Failure> {
    if SetName::new(&args.name).is_none() {
        let form = "a set is named by 1 to 64 of a-z, A-Z, 0-9, `.`, `_`, `-`";
        return Err(Failure::input(&args.name, form));
    }
    let list = read(args)?;
    let operation = match (args.add, args.remove) {
        (true, _) => import_set_header::Operation::Add,
        (_, true) => import_set_header::Operation::Remove,
        _ => import_set_header::Operation::Replace,
    };
    let header = ImportSetHeader {
        set: args.name.clone(),
        operation: operation.into(),
        expected_generation: args.guard.expect,
        idempotency_key: args.guard.idempotency_key.clone(),
        confirm_within: args.guard.confirm_within(),
        count_entries: args.count_entries,
        ..Default::default()
    };
    let bar = progress(list.len() as u64, args.remote.json);
    let done = remote::call(&args.remote, async |mut client| {
        client
            .import_set(messages(header, &list, bar.clone()))
            .await
    });
    bar.finish_and_clear();
    let done = done.map_err(|failure| match failure {
        Failure::Operation(why) if args.add || args.remove => Failure::Operation(why.replace(
            "import it with OPERATION_REPLACE, which makes it",
            "without --add and --remove it is made",
        )),
        other => other,
    })?;
    answer(args.remote.json, &done, |done| text(args, done))
}

/// The list, from a file or stdin.
fn read(args: &Import) -> Result<policy::AddressSet, Failure> {
    let mut bytes = Vec::new();
    let (name, read) = match args.file.to_str() {
        Some("-") => (
            "stdin".to_owned(),
            io::stdin().lock().read_to_end(&mut bytes),
        ),
        _ => (
            args.file.display().to_string(),
            fs::File::open(&args.file).and_then(|mut file| file.read_to_end(&mut bytes)),
        ),
    };
    read.map_err(|e| Failure::input(&name, e))?;
    // Comments may be in whatever encoding; addresses are not.
    policy::AddressSet::from_list(&String::from_utf8_lossy(&bytes)).map_err(|e| match e {
        ListError::Entry { line, source, .. } => Failure::Input(format!("{name}:{line}: {source}")),
        other => Failure::input(&name, other),
    })
}

/// The messages of the call: the header, which says how many entries follow, then these by family, packed.
fn messages(
    header: ImportSetHeader,
    list: &policy::AddressSet,
    bar: ProgressBar,
) -> impl tokio_stream::Stream<Item = ImportSetRequest> + Send + 'static {
    let header = ImportSetHeader {
        expect_entries: Some(list.len() as u64),
        ..header
    };
    let (v4, v6): (Vec<Prefix>, Vec<Prefix>) = list.iter().partition(|p| p.addr().is_ipv4());
    let part = |part| ImportSetRequest { part: Some(part) };
    let chunks = |all: Vec<Prefix>| -> Vec<Vec<Prefix>> {
        all.chunks(CHUNK).map(<[Prefix]>::to_vec).collect()
    };
    let entries = chunks(v4).into_iter().chain(chunks(v6));
    let entries = entries.map(move |chunk| {
        bar.inc(chunk.len() as u64);
        part(import_set_request::Part::Entries(packed(&chunk)))
    });
    let header = part(import_set_request::Part::Header(header));
    tokio_stream::iter(std::iter::once(header).chain(entries))
}

/// What the API advises.
const CHUNK: usize = 10_000;

fn packed(chunk: &[Prefix]) -> SetEntries {
    let mut entries = SetEntries::default();
    for prefix in chunk {
        match prefix.addr() {
            IpAddr::V4(addr) => {
                entries.packed_ipv4.extend(addr.octets());
                entries.packed_ipv4.push(prefix.len());
            }
            IpAddr::V6(addr) => {
                entries.packed_ipv6.extend(addr.octets());
                entries.packed_ipv6.push(prefix.len());
            }
        }
    }
    entries
}

/// A bar on stderr, if that is a terminal.
fn progress(entries: u64, json: bool) -> ProgressBar {
    let target = match io::stderr().is_terminal() && !json {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(entries), target);
    let form = "{bar:40} {human_pos} of {human_len} entries {msg}";
    if let Ok(style) = ProgressStyle::with_template(form) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn text(args: &Import, done: &ImportSetResponse) -> String {
    let mut text = match (done.repeated, &done.effect) {
        (true, _) => changes::repeated(),
        (false, Some(effect)) => format!(
            "set {}: {} entries received; {}\n",
            args.name,
            done.received,
            changes::effect_text(effect)
        ),
        (false, None) => format!("set {}: {} entries received\n", args.name, done.received),
    };
    text += &changes::after(done.applied.as_ref(), done.confirm_by, done.generation);
    text
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;
    use xdpgate::policy::AddressSet;
    use xdpgate_api::v1::{ImportSetHeader, import_set_request};

    use super::{messages, packed};

    #[test]
    fn entries_are_packed_by_family() {
        let prefixes = ["192.0.2.0/24", "2001:db8::1"].map(|p| p.parse().expect("a prefix"));
        let entries = packed(&prefixes);
        assert_eq!(entries.packed_ipv4, [192, 0, 2, 0, 24]);
        assert_eq!(entries.packed_ipv6.len(), 17);
        assert_eq!(entries.packed_ipv6[16], 128);
    }

    #[tokio::test]
    async fn everything_is_sent_once_in_chunks() {
        let list: String = (0..25_000u32)
            .map(|n| format!("{}\n", std::net::Ipv4Addr::from(0x0b00_0000 + n)))
            .collect();
        let list = AddressSet::from_list(&(list + "2001:db8::/32\n")).expect("a list");
        let bar = indicatif::ProgressBar::hidden();
        let sent: Vec<_> = messages(ImportSetHeader::default(), &list, bar.clone())
            .collect()
            .await;
        let sizes: Vec<(usize, usize)> = sent
            .iter()
            .filter_map(|message| match &message.part {
                Some(import_set_request::Part::Entries(e)) => {
                    Some((e.packed_ipv4.len() / 5, e.packed_ipv6.len() / 17))
                }
                _ => None,
            })
            .collect();
        let Some(import_set_request::Part::Header(header)) = &sent[0].part else {
            panic!("{:?}", sent[0]);
        };
        assert_eq!(header.expect_entries, Some(25_001));
        assert_eq!(sizes, [(10_000, 0), (10_000, 0), (5_000, 0), (0, 1)]);
        assert_eq!(bar.position(), 25_001);
    }
}
