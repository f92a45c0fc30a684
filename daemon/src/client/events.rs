//! `xdpgate events`: sampled frames that were dropped, or would have been.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use xdpgate::{PcapngFrame, PcapngWriter};
use xdpgate_api::v1::{Event, WatchEventsRequest};

use super::args::Remote;
use super::out::{print, print_json_line, styled};
use super::{duration, json, names, remote};
use crate::Failure;

#[derive(Debug, Args)]
#[command(after_help = "\
Frames are sampled, at most 10 a second for each rule or other reason and 1000 in all. What was lost
because it was read too slowly is said. A frame is its first 128 bytes.

Without --follow and --count it ends after --for. A file for Wireshark has verdict, rule and reason as the
comment of each packet.

Examples:
  xdpgate events --follow
  xdpgate events --rule block-dns --count 20
  xdpgate events --pcap drops.pcapng --for 30s
  xdpgate events --follow --pcap - | tshark -r -
  xdpgate events --json --follow | jq -r 'select(.event) | .event.source'")]
pub(super) struct Events {
    /// Go on until Ctrl-C
    #[arg(long, conflicts_with = "time")]
    pub follow: bool,
    /// End after so many frames
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End after this time
    #[arg(long = "for", id = "time", value_name = "DURATION", value_parser = duration::parse)]
    #[arg(default_value = "10s")]
    pub time: Duration,
    /// Write the frames to a pcapng file; - stands for stdout
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
    /// Only those of this rule
    #[arg(long, value_name = "ID")]
    pub rule: Option<String>,
    /// Only those of this interface
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// How many a second at most for each rule or other reason
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub per_rule: u32,
    /// How many a second at most in all
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub total: u32,
    #[command(flatten)]
    pub remote: Remote,
}

pub(super) fn run(args: &Events) -> Result<(), Failure> {
    let request = WatchEventsRequest {
        per_rule_per_second: args.per_rule,
        total_per_second: args.total,
        rule: args.rule.clone(),
        interface: args.interface.clone(),
    };
    let mut sink = Sink::new(args)?;
    let read = remote::session(&args.remote, async |mut client| {
        let stream = client.watch_events(request).await;
        let stream = stream.map_err(|status| remote::refused(&args.remote, &status))?;
        let reading = remote::each(&args.remote, stream.into_inner(), |message| {
            sink.lost(message.lost)?;
            for event in &message.events {
                if sink.event(event)? == remote::Enough::Yes {
                    return Ok(remote::Enough::Yes);
                }
            }
            sink.flush()?;
            Ok(remote::Enough::No)
        });
        match args.follow || args.count.is_some() {
            true => reading.await,
            false => match tokio::time::timeout(args.time, reading).await {
                Ok(ended) => ended,
                Err(_) => Ok(()),
            },
        }
    });
    sink.finish(read)
}

/// Where the frames go.
struct Sink {
    form: Form,
    left: Option<u64>,
    frames: u64,
    lost: u64,
    file: Option<PathBuf>,
}

enum Form {
    Text,
    Json,
    Pcapng(PcapngWriter<Box<dyn Write + Send>>),
}

impl Sink {
    fn new(args: &Events) -> Result<Self, Failure> {
        let form = match &args.pcap {
            None if args.remote.json => Form::Json,
            None => Form::Text,
            Some(path) => Form::Pcapng(writer(path)?),
        };
        Ok(Self {
            form,
            left: args.count,
            frames: 0,
            lost: 0,
            file: args.pcap.clone(),
        })
    }

    /// Says how many were lost, if there are more than before.
    fn lost(&mut self, lost: u64) -> Result<(), Failure> {
        if lost > self.lost {
            self.lost = lost;
            match self.form {
                Form::Json => print_json_line(&serde_json::json!({ "lost": lost, "event": null }))?,
                Form::Text | Form::Pcapng(_) => eprintln!("lost so far: {lost}"),
            }
        }
        Ok(())
    }

    fn event(&mut self, event: &Event) -> Result<remote::Enough, Failure> {
        match &mut self.form {
            Form::Text => print(&text(event))?,
            Form::Json => {
                let event = json::of(event)?;
                print_json_line(&serde_json::json!({ "lost": self.lost, "event": event }))?;
            }
            Form::Pcapng(writer) => write(writer, event)?,
        }
        self.frames += 1;
        self.left = self.left.map(|left| left - 1);
        Ok(match self.left {
            Some(0) => remote::Enough::Yes,
            _ => remote::Enough::No,
        })
    }

    /// Lets what reads the file see what is there.
    fn flush(&mut self) -> Result<(), Failure> {
        match &mut self.form {
            Form::Pcapng(writer) => writer.flush().map_err(|e| Failure::output(&e)),
            Form::Text | Form::Json => Ok(()),
        }
    }

    /// What was written stays, however the reading ended.
    fn finish(mut self, read: Result<(), Failure>) -> Result<(), Failure> {
        let flushed = self.flush();
        read?;
        flushed?;
        if let (Some(file), Form::Pcapng(_)) = (&self.file, &self.form) {
            eprintln!(
                "{}: {} frames, {} lost",
                file.display(),
                self.frames,
                self.lost
            );
        }
        Ok(())
    }
}

fn writer(path: &PathBuf) -> Result<PcapngWriter<Box<dyn Write + Send>>, Failure> {
    let out: Box<dyn Write + Send> = match path.to_str() {
        Some("-") if std::io::stdout().is_terminal() => {
            return Err(Failure::input(
                "--pcap -",
                "stdout is a terminal; name a file",
            ));
        }
        Some("-") => Box::new(std::io::stdout()),
        _ => {
            let file = File::create(path).map_err(|e| Failure::input(path.display(), e))?;
            Box::new(BufWriter::new(file))
        }
    };
    PcapngWriter::new(out).map_err(|e| Failure::output(&e))
}

fn write(writer: &mut PcapngWriter<Box<dyn Write + Send>>, event: &Event) -> Result<(), Failure> {
    let name = Some(event.interface.as_str()).filter(|name| !name.is_empty());
    let frame = PcapngFrame {
        time: event.time.and_then(duration::time).unwrap_or_default(),
        ifindex: event.ifindex,
        interface: name,
        length: event.length,
        data: &event.data,
        comment: &comment(event),
    };
    writer.write_frame(&frame).map_err(|e| Failure::output(&e))
}

/// As the library writes it for its own events.
fn comment(event: &Event) -> String {
    let mut text = names::disposition(event.disposition()).to_owned();
    if let Some(rule) = &event.rule {
        text += &format!(" rule={rule}");
    }
    text + &format!(
        " reason={} generation={} queue={}",
        event.reason, event.generation, event.queue
    )
}

fn text(event: &Event) -> String {
    let time = match event.time.and_then(duration::time) {
        Some(time) => format!("{time:.3}"),
        None => "-".to_owned(),
    };
    let style = names::disposition_style(event.disposition());
    let verdict = styled(
        style,
        format!("{:<10}", names::disposition(event.disposition())),
    );
    let why = match &event.rule {
        Some(rule) => format!("{}={rule}", event.reason),
        None => event.reason.clone(),
    };
    let interface = match event.interface.as_str() {
        "" => format!("if{}", event.ifindex),
        name => name.to_owned(),
    };
    format!(
        "{time}  {interface}  {verdict}  {why}  {}  {} bytes\n",
        flow(event),
        event.length
    )
}

/// `udp 203.0.113.7:40000 > 192.0.2.1:53`.
fn flow(event: &Event) -> String {
    if event.source.is_empty() {
        return "no IP packet".to_owned();
    }
    let protocol = event.protocol.unwrap_or_default();
    let name = u8::try_from(protocol)
        .ok()
        .and_then(xdpgate::policy::ProtocolName::of);
    let protocol = name.map_or_else(|| protocol.to_string(), str::to_owned);
    let end = |address: &str, port: Option<u32>| match port {
        None => address.to_owned(),
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
    };
    format!(
        "{protocol} {} > {}",
        end(&event.source, event.source_port),
        end(&event.destination, event.destination_port)
    )
}
