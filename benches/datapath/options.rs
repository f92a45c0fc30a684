//! The command line.

pub const HELP: &str = "\
What one packet costs, what a policy costs to compile and publish, and what others take for it.

cargo bench --bench datapath -- [--json] [--quick] [--list] [--only PART]... [FILTER]...

  FILTER       only cases whose name contains it, e.g. 'v4 hosts', 'ClassBench fw1 1k', 'rate limit'
  --only PART  packets: nanoseconds a packet by BPF_PROG_TEST_RUN, beside the floor and xdp-filter
               build:   time to compile and publish large policies and changes of them
               receive: through the receive path of a veth pair, beside xdp-filter and nftables
  --quick      few and short batches: to see that it works, not to publish
  --json       one JSON document on standard output, progress on standard error
  --list       the names of all cases

Needs root, a quiet machine and, for the others, `scripts/setup --bench`. Attaches to nothing but
veth pairs in a network namespace of its own. The data folder is XDPGATE_DATA or ../shared/data;
without it generated rule sets stand in for ClassBench and ipsum. See docs/benchmarks.md.

Exit: 0 done, 1 a filter judged wrongly, 2 wrong use.";

/// What is asked for.
#[derive(Default)]
pub struct Options {
    pub json: bool,
    pub quick: bool,
    pub list: bool,
    pub help: bool,
    only: Vec<Part>,
    filters: Vec<String>,
}

/// A part of the benchmark.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Packets,
    Build,
    Receive,
}

impl Options {
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--json" => options.json = true,
                "--quick" => options.quick = true,
                "--list" => options.list = true,
                "-h" | "--help" => options.help = true,
                // Cargo says this to every benchmark.
                "--bench" => {}
                "--only" => options.only.push(part(arguments.next().as_deref())?),
                other if other.starts_with('-') => {
                    return Err(format!("unknown option {other}; see --help"));
                }
                _ => options.filters.push(argument),
            }
        }
        Ok(options)
    }

    pub fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    pub fn selects(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|f| name.contains(f.as_str()))
    }

    /// How many batches of each subject.
    pub fn batches(&self) -> usize {
        if self.quick { 7 } else { 41 }
    }
}

fn part(name: Option<&str>) -> Result<Part, String> {
    match name {
        Some("packets") => Ok(Part::Packets),
        Some("build") => Ok(Part::Build),
        Some("receive") => Ok(Part::Receive),
        _ => Err("--only takes packets, build or receive".to_owned()),
    }
}
