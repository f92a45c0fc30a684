//! Runs programs over tables of flows, in interleaved batches.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use libbpf_rs::libbpf_sys::{self, bpf_map_create_opts};
use libbpf_rs::{
    MapCore, MapFlags, MapHandle, MapType, Object, ObjectBuilder, ProgramInput, ProgramMut,
};
use xdpgate::Verdict;

use crate::batches::Batches;
use crate::case::Floor;
use crate::flow::{Flow, Headers, frame};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const F_MMAPABLE: u32 = 1 << 10;
const F_XDP_HAS_FRAGS: u32 = 1 << 5;

/// How many packets a batch has.
pub const BATCH: u32 = 100_000;

/// The harness program, compiled.
pub struct Harness {
    object: PathBuf,
}

/// A program under test.
pub struct Subject {
    pub name: &'static str,
    pub fd: OwnedFd,
}

/// What the harness is loaded with.
pub struct Setup<'a> {
    pub program: &'a str,
    pub flows: Option<&'a MapHandle>,
    /// How many of the flows are used.
    pub flow_count: u32,
    /// Where `transmit` sends.
    pub ifindex: u32,
    /// How many entries each map of the floor has.
    pub entries: usize,
    pub flags: u32,
}

impl Setup<'_> {
    pub fn of(program: &str) -> Setup<'_> {
        Setup {
            program,
            flows: None,
            flow_count: 1,
            ifindex: 0,
            entries: 1,
            flags: 0,
        }
    }
}

impl Harness {
    pub fn compile(dir: &Path) -> io::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let object = dir.join("harness.bpf.o");
        // Those that come with the library: no other libbpf need be installed.
        let headers = dir.join("include");
        fs::create_dir_all(headers.join("bpf"))?;
        for (name, text) in libbpf_sys::API_HEADERS {
            fs::write(headers.join("bpf").join(name), text)?;
        }
        let status = Command::new(env!("XDPGATE_CLANG_PROGRAM"))
            .args(["-O2", "-g", "-mcpu=v3", "-target", "bpf", "-c"])
            .arg(root.join("benches/bpf/harness.bpf.c"))
            .arg("-o")
            .arg(&object)
            .arg("-I")
            .arg(&headers)
            .arg(format!(
                "-idirafter/usr/include/{}-linux-gnu",
                std::env::consts::ARCH
            ))
            .status()?;
        if !status.success() {
            return Err(io::Error::other(
                "clang could not compile benches/bpf/harness.bpf.c",
            ));
        }
        Ok(Self { object })
    }

    /// Loads the harness with one of its programs.
    pub fn load(&self, setup: &Setup<'_>) -> libbpf_rs::Result<Object> {
        let mut open = ObjectBuilder::default().open_file(&self.object)?;
        for mut program in open.progs_mut() {
            program.set_autoload(program.name() == setup.program);
            program.set_flags(setup.flags);
        }
        for mut map in open.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            if name == "flows" {
                if let Some(flows) = setup.flows {
                    map.reuse_fd(flows.as_fd())?;
                }
            } else if name.starts_with("hosts") || name.starts_with("prefixes") || name == "tuples"
            {
                map.set_max_entries(setup.entries.max(1) as u32)?;
            } else if name.ends_with(".rodata") {
                let words = [setup.flow_count, setup.ifindex].map(u32::to_ne_bytes);
                map.initial_value_mut().expect("rodata")[..8].copy_from_slice(&words.concat());
            }
        }
        open.load()
    }

    /// The bare verdict.
    pub fn empty(&self, verdict: Verdict) -> Subject {
        let name = match verdict {
            Verdict::Drop => "empty_drop",
            Verdict::Pass => "empty_pass",
        };
        let object = self.load(&Setup::of(name)).expect("load a bare verdict");
        Subject {
            name: "empty",
            fd: program(&object, name).1,
        }
    }

    /// The floor, filled.
    pub fn floor(&self, floor: &Floor) -> Subject {
        let (name, entries) = match floor {
            Floor::Hash(entries) => ("floor_hash", entries.len()),
            Floor::Lpm(entries) => ("floor_lpm", entries.len()),
            Floor::Tuples(tuples) => ("floor_tuple", tuples.len()),
        };
        let setup = Setup {
            entries,
            ..Setup::of(name)
        };
        let object = self.load(&setup).expect("load the floor");
        for map in object.maps() {
            let map_name = map.name().to_string_lossy().into_owned();
            for key in floor_keys(floor, &map_name) {
                map.update(&key, &1u64.to_ne_bytes(), MapFlags::ANY)
                    .expect("fill the floor");
            }
        }
        Subject {
            name: "floor",
            fd: program(&object, name).1,
        }
    }

    /// The program that feeds these flows to the subject.
    pub fn replay(
        &self,
        subject: &Subject,
        flows: &MapHandle,
        flow_count: usize,
        shape: Shape,
    ) -> Result<Replay, String> {
        let mut refused = String::new();
        // The kernel wants both ends of a tail call to be alike in how they take large frames.
        for flags in [0, F_XDP_HAS_FRAGS] {
            let setup = Setup {
                flows: Some(flows),
                flow_count: flow_count as u32,
                flags,
                ..Setup::of("replay")
            };
            let object = self.load(&setup).map_err(|e| format!("{e:#}"))?;
            let target = object
                .maps()
                .find(|m| m.name() == "target")
                .expect("its map");
            let fd = subject.fd.as_raw_fd().to_ne_bytes();
            match target.update(&0u32.to_ne_bytes(), &fd, MapFlags::ANY) {
                Ok(()) => {
                    return Ok(Replay {
                        object,
                        frame: frame(None, shape.v6, shape.frame),
                    });
                }
                Err(e) => refused = format!("cannot be tail-called: {e}"),
            }
        }
        Err(refused)
    }
}

/// The form of the test frame.
#[derive(Clone, Copy)]
pub struct Shape {
    pub v6: bool,
    pub frame: usize,
}

/// A subject with flows in front of it.
pub struct Replay {
    object: Object,
    frame: Vec<u8>,
}

impl Replay {
    /// Judges every flow once, to warm what can be warmed.
    pub fn warm(&self, flow_count: usize) -> Result<(), String> {
        self.run(flow_count as u32).map(|_| ())
    }

    /// How many of the next verdicts are not what they must be.
    pub fn wrong(&self, expected: &[Verdict]) -> Result<usize, String> {
        let mut wrong = 0;
        for verdict in expected {
            let action = match verdict {
                Verdict::Drop => XDP_DROP,
                Verdict::Pass => XDP_PASS,
            };
            wrong += usize::from(self.run(1)?.1 != action);
        }
        Ok(wrong)
    }

    /// Nanoseconds a packet as the kernel reports them, and the last verdict.
    fn run(&self, repeat: u32) -> Result<(f64, u32), String> {
        let input = ProgramInput {
            data_in: Some(&self.frame),
            repeat,
            ..Default::default()
        };
        let output = program(&self.object, "replay").0.test_run(input);
        let output = output.map_err(|e| format!("BPF_PROG_TEST_RUN: {e}"))?;
        Ok((output.duration.as_nanos() as f64, output.return_value))
    }
}

/// Batches of all, interleaved.
pub fn measure(replays: &[Replay], batches: usize) -> Result<Vec<Batches>, String> {
    let mut out: Vec<Batches> = replays.iter().map(|_| Batches::default()).collect();
    for round in 0..batches {
        for i in 0..replays.len() {
            let i = (i + round) % replays.len();
            out[i].0.push(replays[i].run(BATCH)?.0);
        }
    }
    Ok(out)
}

/// An array of flows that the harness can be loaded with.
pub fn flow_map(flows: &[Headers]) -> MapHandle {
    let options = bpf_map_create_opts {
        sz: size_of::<bpf_map_create_opts>() as _,
        map_flags: F_MMAPABLE,
        ..Default::default()
    };
    let count = flows.len() as u32;
    let map = MapHandle::create(MapType::Array, Some("flows"), 4, 64, count, &options);
    let map = map.expect("a map for the flows");
    let keys: Vec<u8> = (0..count).flat_map(u32::to_ne_bytes).collect();
    map.update_batch(
        &keys,
        flows.as_flattened(),
        count,
        MapFlags::ANY,
        MapFlags::ANY,
    )
    .expect("fill the flows");
    map
}

/// One program of a loaded object.
pub fn program<'o>(object: &'o Object, name: &str) -> (ProgramMut<'o>, OwnedFd) {
    let program = object
        .progs_mut()
        .find(|p| p.name() == name)
        .expect("a program of the object");
    let fd = program.as_fd().try_clone_to_owned().expect("dup");
    (program, fd)
}

/// What of the floor goes into the map of this name.
fn floor_keys(floor: &Floor, map: &str) -> Vec<Vec<u8>> {
    match (floor, map) {
        (Floor::Hash(entries), "hosts4" | "hosts6")
        | (Floor::Lpm(entries), "prefixes4" | "prefixes6") => {
            let lpm = matches!(floor, Floor::Lpm(_));
            let of_map = entries
                .iter()
                .filter(|p| p.addr().is_ipv4() == map.ends_with('4'));
            let key = |length: u8, address: &[u8]| match lpm {
                true => [&u32::from(length).to_ne_bytes()[..], address].concat(),
                false => address.to_vec(),
            };
            let keys = of_map.map(|p| match p.addr() {
                IpAddr::V4(a) => key(p.len(), &a.octets()),
                IpAddr::V6(a) => key(p.len(), &a.octets()),
            });
            keys.collect()
        }
        (Floor::Tuples(tuples), "tuples") => tuples.iter().map(tuple_key).collect(),
        _ => Vec::new(),
    }
}

fn tuple_key(t: &Flow) -> Vec<u8> {
    let address = |a: IpAddr| match a {
        IpAddr::V4(a) => a.octets(),
        IpAddr::V6(_) => panic!("the floor of five-tuples is IPv4"),
    };
    let mut key = [address(t.src), address(t.dst)].concat();
    key.extend(t.sport.to_be_bytes());
    key.extend(t.dport.to_be_bytes());
    key.extend(u32::from(t.protocol).to_ne_bytes());
    key
}

/// Keeps the thread on one CPU. A failure only makes the figures noisier.
pub fn settle(cpu: usize) {
    let mut set = nix::sched::CpuSet::new();
    if set.set(cpu).is_ok() {
        let _ = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set);
    }
}
