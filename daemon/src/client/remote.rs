//! Talking to a daemon.

use tonic::{Code, Response, Status, Streaming};
use tonic_types::StatusExt;

use super::args::Remote;
use super::connect::{Client, broken_off, connect};
use crate::Failure;

/// Connects, makes one call, and puts what goes wrong into one line.
pub(super) fn call<R>(
    remote: &Remote,
    call: impl AsyncFnOnce(Client) -> Result<Response<R>, Status>,
) -> Result<R, Failure> {
    session(remote, async |client| match call(client).await {
        Ok(response) => Ok(response.into_inner()),
        Err(status) if is_broken(&status) => Err(match broken_off(remote).await {
            Some(said) => Failure::operation(format!("{}: {said}", remote.server)),
            None => refused(remote, &status),
        }),
        Err(status) => Err(refused(remote, &status)),
    })
}

/// Connects and does with the connection what takes more than one call.
pub(super) fn session<T>(
    remote: &Remote,
    work: impl AsyncFnOnce(Client) -> Result<T, Failure>,
) -> Result<T, Failure> {
    run(async { work(connect(remote).await?).await })
}

/// Runs what waits for the network, on this thread.
pub(super) fn run<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::operation)?
        .block_on(work)
}

/// Reads a stream to its end, or until `message` says that it is enough, or Ctrl-C.
pub(super) async fn each<M>(
    remote: &Remote,
    mut stream: Streaming<M>,
    mut message: impl FnMut(M) -> Result<Enough, Failure>,
) -> Result<(), Failure> {
    loop {
        let next = tokio::select! {
            next = stream.message() => next,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        match next.map_err(|status| refused(remote, &status))? {
            None => return Ok(()),
            Some(next) => {
                if message(next)? == Enough::Yes {
                    return Ok(());
                }
            }
        }
    }
}

/// Whether a stream was read far enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Enough {
    Yes,
    No,
}

/// Whether it is the connection that is at fault.
fn is_broken(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Cancelled | Code::Unknown
    )
}

/// What the daemon refused, by whose fault it is. Of several faults of a request each is a line.
pub(super) fn refused(remote: &Remote, status: &Status) -> Failure {
    let server = &remote.server;
    let message = match status.message() {
        "" => status.code().description(),
        message => message,
    };
    match status.code() {
        Code::InvalidArgument => match violations(status) {
            faults if faults.is_empty() => Failure::Input(message.to_owned()),
            faults => Failure::Faults(faults),
        },
        Code::Unimplemented if status.message().is_empty() => Failure::operation(format!(
            "{server}: {message}; is it an xdpgated of this version?"
        )),
        _ if is_broken(status) => {
            Failure::operation(format!("{server}: the connection broke: {message}"))
        }
        _ => Failure::operation(message),
    }
}

/// The fields that are at fault, with what is wrong with them.
fn violations(status: &Status) -> Vec<String> {
    let line = |v: &tonic_types::FieldViolation| match v.field.as_str() {
        "" => v.description.clone(),
        // The client sends a whole policy as this field.
        "yaml" => v.description.clone(),
        field if v.description.starts_with(field) => v.description.clone(),
        field => format!("{field}: {}", v.description),
    };
    let details = status.get_details_bad_request();
    let all = details.iter().flat_map(|d| &d.field_violations);
    all.map(line).collect()
}
