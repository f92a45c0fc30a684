//! Policies, rules and sets over the API, and what it says of the machine.

mod common;

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use common::api::{Client, Scene, apply, arrives};
use common::{is_root, run};
use libbpf_rs::query::{ProgInfoIter, ProgInfoQueryOptions};
use tokio::time::timeout;
use tokio_stream::iter;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use xdpgate_api::v1::change::Change as Is;
use xdpgate_api::v1::import_set_header::Operation;
use xdpgate_api::v1::import_set_request::Part;
use xdpgate_api::v1::{
    Change, ChangePolicyRequest, GetPolicyRequest, GetStatusRequest, GetSystemRequest,
    ImportSetHeader, ImportSetRequest, ListRulesRequest, ListRulesResponse, ListSetEntriesRequest,
    Mode, Program, ReloadConfigRequest, SetEntries, SetEntry, SetModeRequest, effect,
};

const RULES: &str = "
version: 1
sets: { bad: { entries: [203.0.113.7] } }
rules:
  - { id: web, priority: 5, match: { dport: [80, 443] }, action: pass, name: The Web, labels: { owner: web } }
  - { id: nine, match: { dport: 9, protocol: udp }, action: count, labels: { owner: lab, tier: '1' } }
  - { id: bad, match: { src: '@bad' }, action: drop, comment: Known offenders }
  - { id: off, match: { dst: 198.51.100.0/24 }, action: drop, enabled: false }
";

async fn rules(
    client: &mut Client,
    request: ListRulesRequest,
) -> Result<ListRulesResponse, Status> {
    Ok(client.list_rules(request).await?.into_inner())
}

fn ids(list: &ListRulesResponse) -> Vec<&str> {
    list.rules.iter().map(|rule| rule.id.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn r67_rules_by_pages_and_by_search() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let mut client = scene.client().await;
    let none = rules(&mut client, ListRulesRequest::default())
        .await
        .expect("no policy");
    assert_eq!((none.rules.len(), none.generation), (0, 0));
    apply(&mut client, RULES).await;
    let (sender, receiver) = (scene.sender(), scene.receiver());
    for _ in 0..3 {
        assert!(arrives(&sender, &receiver));
    }
    let all = rules(&mut client, ListRulesRequest::default())
        .await
        .expect("rules");
    // In the order of evaluation, not of the file.
    assert_eq!(ids(&all), ["web", "nine", "bad", "off"]);
    let nine = &all.rules[1];
    assert_eq!(nine.stats.as_ref().expect("counters").packets, 3);
    let json: serde_json::Value = serde_json::from_str(&nine.json).expect("JSON");
    assert_eq!(json["match"]["dport"], 9);
    let off = &all.rules[3];
    assert!(!off.enabled && off.stats.is_none());

    let search = |search: &str, address: &str, labels: &[&str]| ListRulesRequest {
        search: search.to_owned(),
        address: address.to_owned(),
        labels: labels.iter().map(|l| (*l).to_owned()).collect(),
        ..Default::default()
    };
    for (request, expected) in [
        (search("the web", "", &[]), vec!["web"]),
        (search("OFFEND", "", &[]), vec!["bad"]),
        (search("", "203.0.113.7", &[]), vec!["bad"]),
        (search("", "198.51.100.9", &[]), vec!["off"]),
        (search("", "", &["owner"]), vec!["web", "nine"]),
        (search("", "", &["owner=lab", "tier"]), vec!["nine"]),
        (search("nowhere", "", &[]), vec![]),
    ] {
        let found = rules(&mut client, request).await.expect("rules");
        assert_eq!(ids(&found), expected);
        assert_eq!(found.total, expected.len() as u64);
    }

    let page = |page_size, page_token: &str| ListRulesRequest {
        page_size,
        page_token: page_token.to_owned(),
        ..Default::default()
    };
    let first = rules(&mut client, page(3, "")).await.expect("a page");
    assert_eq!((ids(&first), first.total), (vec!["web", "nine", "bad"], 4));
    let last = rules(&mut client, page(3, &first.next_page_token))
        .await
        .expect("a page");
    assert_eq!((ids(&last), &*last.next_page_token), (vec!["off"], ""));
    for (request, field) in [
        (page(1001, ""), "page_size"),
        (page(1, "x"), "page_token"),
        (search("", "10.0.0.0/8", &[]), "address"),
        (search("", "", &[""]), "labels[0]"),
        (
            ListRulesRequest {
                page_token: first.next_page_token.clone(),
                ..search("web", "", &[])
            },
            "page_token",
        ),
    ] {
        let status = rules(&mut client, request).await.expect_err(field);
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        let details = status.get_details_bad_request().expect("a violation");
        assert_eq!(details.field_violations[0].field, field, "{status}");
    }
    apply(&mut client, "version: 1").await;
    let status = rules(&mut client, page(3, &first.next_page_token)).await;
    assert_eq!(status.expect_err("another policy").code(), Code::Aborted);
}

fn change(is: Is) -> Change {
    Change { change: Some(is) }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_all_or_in_part() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let mut client = scene.client().await;
    apply(&mut client, RULES).await;
    let (sender, receiver) = (scene.sender(), scene.receiver());
    let changes = vec![
        change(Is::PutRule(
            "{ id: x, match: { sport: 99999 }, action: drop }".into(),
        )),
        change(Is::CreateRule("{ id: web, action: pass }".into())),
        change(Is::PutRule(
            "{ id: nine, match: { dport: 9 }, action: drop }".into(),
        )),
        Change { change: None },
        change(Is::RemoveSet("bad".into())),
    ];
    let mut request = ChangePolicyRequest {
        changes,
        ..Default::default()
    };
    let status = client
        .change_policy(request.clone())
        .await
        .expect_err("refused");
    let details = status.get_details_bad_request().expect("violations");
    let fields: Vec<_> = details.field_violations.iter().map(|v| &*v.field).collect();
    assert_eq!(
        fields,
        ["changes[0].put_rule.match.sport", "changes[3].change"]
    );
    assert!(arrives(&sender, &receiver));

    request.partial = true;
    let done = client
        .change_policy(request.clone())
        .await
        .expect("in part")
        .into_inner();
    let kinds: Vec<_> = done.effects.iter().map(|e| e.kind()).collect();
    use effect::Kind::{Refused, Replaced};
    assert_eq!(kinds, [Refused, Refused, Replaced, Refused, Refused]);
    let why = |n: usize| done.effects[n].error.as_deref().unwrap_or_default();
    assert!(
        why(1).starts_with("changes[1].create_rule: rule web: "),
        "{}",
        why(1)
    );
    assert!(why(4).starts_with("changes[4].remove_set: "), "{}", why(4));
    assert!(!arrives(&sender, &receiver));

    // What the library finds, likewise with the place in the request.
    request.partial = false;
    request.changes.remove(3);
    request.changes.remove(0);
    let status = client.change_policy(request).await.expect_err("refused");
    let details = status.get_details_bad_request().expect("violations");
    let fields: Vec<_> = details.field_violations.iter().map(|v| &*v.field).collect();
    assert_eq!(
        fields,
        [
            "changes[0].create_rule.id",
            "changes[2].remove_set.match.src"
        ]
    );
}

fn header(set: &str, operation: Operation) -> ImportSetRequest {
    ImportSetRequest {
        part: Some(Part::Header(ImportSetHeader {
            set: set.to_owned(),
            operation: operation.into(),
            ..Default::default()
        })),
    }
}

fn entries(prefixes: &[&str]) -> ImportSetRequest {
    let entry = |prefix: &&str| SetEntry {
        prefix: (*prefix).to_owned(),
        expires: None,
    };
    ImportSetRequest {
        part: Some(Part::Entries(SetEntries {
            entries: prefixes.iter().map(entry).collect(),
            ..Default::default()
        })),
    }
}

fn packed(from: u32, to: u32) -> ImportSetRequest {
    let bytes = (from..to).flat_map(|n| {
        let [a, b, c, d] = (0x0b00_0000 + 3 * n).to_be_bytes();
        [a, b, c, d, 32]
    });
    ImportSetRequest {
        part: Some(Part::Entries(SetEntries {
            packed_ipv4: bytes.collect(),
            ..Default::default()
        })),
    }
}

async fn listed(client: &mut Client, set: &str, covering: &str) -> Vec<String> {
    let request = ListSetEntriesRequest {
        set: set.to_owned(),
        covering: covering.to_owned(),
    };
    let mut stream = client
        .list_set_entries(request)
        .await
        .expect("a set")
        .into_inner();
    let mut all = Vec::new();
    while let Some(message) = stream.message().await.expect("a message") {
        all.extend(message.entries.into_iter().map(|entry| entry.prefix));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn sets_are_imported_whole_or_not_at_all() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let mut client = scene.client().await;
    apply(&mut client, RULES).await;
    let before = generation(&mut client).await;
    let refused = async |mut client: Client, parts: Vec<ImportSetRequest>| {
        client.import_set(iter(parts)).await.expect_err("refused")
    };
    let replace = || header("bad", Operation::Replace);
    let expect = |entries: u64| {
        let mut message = replace();
        if let Some(Part::Header(header)) = &mut message.part {
            header.expect_entries = Some(entries);
        }
        message
    };
    let mut bad_packed = packed(0, 3);
    if let Some(Part::Entries(part)) = &mut bad_packed.part {
        part.packed_ipv4[9] = 8;
    }
    for (parts, field) in [
        (vec![], "header"),
        (vec![entries(&["192.0.2.1"])], "header"),
        (vec![replace(), replace()], "header"),
        (
            vec![
                replace(),
                entries(&["192.0.2.1"]),
                entries(&["192.0.2.1", "x"]),
            ],
            "entries.entries[1].prefix",
        ),
        (vec![replace(), bad_packed], "entries.packed_ipv4"),
        (vec![header("a b", Operation::Add)], "header.set"),
        (vec![expect(3), packed(0, 2)], "header.expect_entries"),
        (vec![expect(3), packed(0, 4)], "header.expect_entries"),
        (vec![expect(3)], "header.expect_entries"),
    ] {
        let status = refused(client.clone(), parts).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        let details = status.get_details_bad_request().expect("a violation");
        assert_eq!(details.field_violations[0].field, field, "{status}");
    }
    let status = refused(
        client.clone(),
        vec![header("new", Operation::Add), packed(0, 3)],
    )
    .await;
    assert_eq!(status.code(), Code::NotFound, "{status}");
    let status = refused(client.clone(), vec![expect(1 << 40)]).await;
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert_eq!(generation(&mut client).await, before);
    // A client that goes away in the middle.
    let (sender, parts) = tokio::sync::mpsc::channel(4);
    let mut other = client.clone();
    let import = tokio::spawn(async move {
        let parts = tokio_stream::wrappers::ReceiverStream::new(parts);
        other.import_set(parts).await
    });
    sender.send(replace()).await.expect("a header");
    sender.send(packed(0, 1000)).await.expect("entries");
    tokio::time::sleep(Duration::from_millis(200)).await;
    import.abort();
    assert!(import.await.is_err());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(generation(&mut client).await, before);
    assert_eq!(listed(&mut client, "bad", "").await, ["203.0.113.7"]);

    let parts = (0..10).map(|n| packed(n * 10_000, (n + 1) * 10_000));
    let parts = std::iter::once(expect(100_002))
        .chain(parts)
        .chain([entries(&["10.9.0.0/24", "::1"])]);
    let done = client
        .import_set(iter(parts.collect::<Vec<_>>()))
        .await
        .expect("imported");
    assert_eq!(done.into_inner().received, 100_002);
    assert!(!arrives(&scene.sender(), &scene.receiver()));
    assert_eq!(listed(&mut client, "bad", "").await.len(), 100_002);
    assert_eq!(
        listed(&mut client, "bad", "10.9.0.2").await,
        ["10.9.0.0/24"]
    );
    let parts = vec![
        header("bad", Operation::Remove),
        entries(&["10.9.0.0/24", "192.0.2.9"]),
    ];
    let done = client
        .import_set(iter(parts))
        .await
        .expect("taken out")
        .into_inner();
    assert_eq!(
        done.effect.map(|e| (e.kind(), e.entries)),
        Some((effect::Kind::Entries, 1))
    );
    assert!(arrives(&scene.sender(), &scene.receiver()));
}

/// While its header is read, while a large part is being added, while it waits for more: whenever the client
/// gives up, nothing changes, and the place among the imports is free again.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_may_be_cancelled_at_any_moment() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let mut client = scene.client().await;
    apply(&mut client, RULES).await;
    let before = generation(&mut client).await;
    let large = packed(0, 100_000);
    for round in 0..24 {
        let (sender, parts) = tokio::sync::mpsc::channel(8);
        let mut other = match round % 2 {
            0 => client.clone(),
            _ => scene.client().await,
        };
        let import = tokio::spawn(async move {
            let parts = tokio_stream::wrappers::ReceiverStream::new(parts);
            other.import_set(parts).await
        });
        let first = header("bad", Operation::Replace);
        sender.send(first).await.expect("a header");
        for _ in 0..6 {
            sender.send(large.clone()).await.expect("entries");
        }
        let moment = RandomState::new().build_hasher().finish() % 200;
        tokio::time::sleep(Duration::from_millis(moment)).await;
        import.abort();
        assert!(import.await.is_err(), "it was not over");
        // Else the stream could end before it is cancelled.
        sender.closed().await;
        let now = generation(&mut client).await;
        assert_eq!(now, before, "round {round}, after {moment} ms");
    }
    // Also what went on when its client was gone is over by then.
    for last in [1, 2, 3] {
        let entry = format!("192.0.2.{last}");
        let parts = vec![header("bad", Operation::Add), entries(&[&entry])];
        let done = timeout(Duration::from_secs(20), client.import_set(iter(parts))).await;
        done.expect("a free place").expect("imported");
    }
    let all = listed(&mut client, "bad", "").await;
    assert_eq!(all, ["192.0.2.1", "192.0.2.2", "192.0.2.3", "203.0.113.7"]);
}

async fn generation(client: &mut Client) -> u64 {
    let policy = client.get_policy(GetPolicyRequest {}).await;
    policy.expect("a policy").into_inner().generation
}

/// Against `/proc`, the interface as `ip` shows it, and the programs as the kernel knows them.
#[tokio::test(flavor = "multi_thread")]
async fn r68_system_and_programs_are_as_the_kernel_says() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let mut client = scene.client().await;
    apply(&mut client, RULES).await;
    let system = client
        .get_system(GetSystemRequest {})
        .await
        .expect("a system")
        .into_inner();
    let read = |path: &str| fs::read_to_string(path).expect(path).trim_end().to_owned();
    assert_eq!(system.hostname, read("/proc/sys/kernel/hostname"));
    assert_eq!(system.kernel_release, read("/proc/sys/kernel/osrelease"));
    assert_eq!(system.boot_id, read("/proc/sys/kernel/random/boot_id"));
    assert_eq!(system.machine, run("uname", ["-m"]).ok().trim());
    assert_eq!(system.cpus.to_string(), run("nproc", ["--all"]).ok().trim());
    let uptime: f64 = read("/proc/uptime")
        .split(' ')
        .next()
        .expect("two")
        .parse()
        .expect("a number");
    assert!((uptime - system.uptime_seconds as f64).abs() < 10.0);
    let memory = read("/proc/meminfo");
    let total = format!("MemTotal: {} kB", system.memory_total_bytes >> 10);
    let first = memory.lines().next().expect("a line");
    assert_eq!(
        first.split_whitespace().collect::<Vec<_>>().join(" "),
        total
    );
    assert!(system.memory_available_bytes < system.memory_total_bytes);
    assert_eq!(system.load.len(), 3);

    let process = |what: &str| format!("/proc/{}/{what}", system.pid);
    assert_eq!(read(&process("comm")), "xdpgated");
    let status = read(&process("status"));
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("a line");
    let resident: f64 = resident
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number");
    let ratio = system.resident_bytes as f64 / 1024.0 / resident;
    assert!((0.7..1.4).contains(&ratio), "{ratio}");
    let files = fs::read_dir(process("fd")).expect("files").count();
    assert!(
        (files as i64 - i64::from(system.open_files)).abs() < 5,
        "{files}"
    );
    assert!(system.cpu_seconds > 0.0 && system.cpu_seconds < 600.0);

    let known: Vec<_> = ProgInfoIter::with_query_opts(
        ProgInfoQueryOptions::default()
            .include_xlated_prog_insns(true)
            .include_jited_prog_insns(true),
    )
    .collect();
    for program in [&system.entry_program, &system.policy_program] {
        let program: &Program = program.as_ref().expect("a program");
        let here = known
            .iter()
            .find(|known| known.id == program.id)
            .expect("in the kernel");
        assert_eq!(here.name.to_string_lossy(), program.name);
        assert_eq!(
            here.xlated_prog_insns.len() as u32,
            program.translated_bytes
        );
        assert_eq!(here.jited_prog_insns.len() as u32, program.machine_bytes);
    }
    let status = client
        .get_status(GetStatusRequest {})
        .await
        .expect("a status")
        .into_inner();
    let attachment = &status.attachments[0];
    let shown = scene
        .host
        .run(|| run("ip", ["-j", "-d", "link", "show", "xg0"]))
        .ok();
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown[0]["ifindex"], attachment.ifindex);
    assert_eq!(shown[0]["xdp"]["prog"]["id"], attachment.program_id);
    assert_eq!(system.entry_program.expect("one").id, attachment.program_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn r72_modes_for_all_and_for_one_interface() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let mut client = scene.client().await;
    let rule = "rules: [{ id: nine, match: { dport: 9 }, action: drop }]";
    apply(&mut client, &format!("version: 1\n{rule}\n")).await;
    let (sender, receiver) = (scene.sender(), scene.receiver());
    assert!(!arrives(&sender, &receiver));
    let set = |mode: Mode, interface: Option<&str>| SetModeRequest {
        mode: mode.into(),
        interface: interface.map(str::to_owned),
        confirm_within: None,
    };
    for (request, passes) in [
        (set(Mode::DryRun, Some("xg0")), true),
        (set(Mode::Enforce, Some("xg0")), false),
        (set(Mode::Pass, None), true),
        (set(Mode::Enforce, None), false),
        (set(Mode::DryRun, None), true),
    ] {
        client.set_mode(request.clone()).await.expect("set");
        assert_eq!(arrives(&sender, &receiver), passes, "{request:?}");
        if request.interface.is_some() {
            let status = client
                .get_status(GetStatusRequest {})
                .await
                .expect("a status");
            assert_eq!(status.into_inner().attachments[0].dry_run, passes);
        }
    }
    // Nobody confirms: what was before is back by itself.
    let within = SetModeRequest {
        confirm_within: Some(prost_types::Duration {
            seconds: 1,
            nanos: 0,
        }),
        ..set(Mode::Enforce, None)
    };
    let answer = client.set_mode(within).await.expect("set").into_inner();
    assert!(answer.confirm_by.is_some());
    assert!(!arrives(&sender, &receiver));
    common::wait_for("the mode before", || {
        arrives(&sender, &receiver).then_some(())
    });

    for (request, code) in [
        (set(Mode::Unspecified, None), Code::InvalidArgument),
        (set(Mode::Pass, Some("xg0")), Code::InvalidArgument),
        (set(Mode::DryRun, Some("nowhere")), Code::NotFound),
        (set(Mode::DryRun, Some("lo")), Code::NotFound),
    ] {
        let status = client.set_mode(request.clone()).await.expect_err("refused");
        assert_eq!(status.code(), code, "{request:?}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_is_read_again() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let mut client = scene.client().await;
    let file = scene.scratch.path("xdpgated.toml");
    let before = fs::read_to_string(&file).expect("the file");
    let reload = async |mut client: Client| {
        let answer = client.reload_config(ReloadConfigRequest {}).await;
        answer.map(tonic::Response::into_inner)
    };
    let nothing = reload(client.clone()).await.expect("read");
    assert_eq!((nothing.changed.len(), nothing.needs_restart.len()), (0, 0));

    fs::write(&file, before.replace("xg*", "other*")).expect("written");
    let changed = reload(client.clone()).await.expect("read").changed;
    assert!(
        changed.iter().any(|key| key.starts_with("interfaces")),
        "{changed:?}"
    );
    common::wait_for("the interface to be let go", || {
        let status = scene.daemon.json(&["status"]);
        (!status.to_string().contains("\"xg0\"")).then_some(())
    });

    fs::write(&file, format!("max_rulez = 4\n{before}")).expect("written");
    let status = reload(client.clone()).await.expect_err("an unknown key");
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert_eq!(
        status.get_details_error_info().expect("why").reason,
        "CONFIG_INVALID"
    );
    let details = status.get_details_bad_request().expect("a violation");
    assert!(
        details.field_violations[0].field.contains("max_rulez"),
        "{details:?}"
    );
    assert!(client.get_status(GetStatusRequest {}).await.is_ok());
}
