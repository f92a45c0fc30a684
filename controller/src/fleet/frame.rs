//! Messages as they go over the wire: encoded and compressed once, and shared as bytes by all who get them.
//!
//! tonic would encode and compress a message anew for each of 10,000 sessions, and keep buffers for
//! each; a [`Frame`] goes into the HTTP/2 stream as it is.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::Stream;
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, DecodeBuf, Decoder};

/// Smaller messages are not compressed.
const WORTH_IT: usize = 256;

/// A gRPC message with its five bytes of header.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    plain: Bytes,
    packed: Option<Bytes>,
}

impl Frame {
    /// Encodes, and compresses if that saves something. Not for async threads if it may be large.
    pub(super) fn new(message: &impl Message) -> Self {
        let length = message.encoded_len();
        let mut plain = BytesMut::with_capacity(5 + length);
        header(&mut plain, 0, length);
        // There is room for all of it.
        let _ = message.encode(&mut plain);
        let packed = (length >= WORTH_IT)
            .then(|| zstd::bulk::compress(&plain[5..], zstd::DEFAULT_COMPRESSION_LEVEL).ok())
            .flatten()
            .filter(|packed| packed.len() < length)
            .map(|packed| {
                let mut out = BytesMut::with_capacity(5 + packed.len());
                header(&mut out, 1, packed.len());
                out.put_slice(&packed);
                out.freeze()
            });
        Self {
            plain: plain.freeze(),
            packed,
        }
    }

    /// The bytes for who takes zstd, or for who does not.
    pub(super) fn bytes(&self, zstd: bool) -> Bytes {
        let packed = self.packed.as_ref().filter(|_| zstd);
        packed.unwrap_or(&self.plain).clone()
    }

    /// How much memory it takes.
    pub(super) fn weight(&self) -> usize {
        self.plain.len() + self.packed.as_ref().map_or(0, Bytes::len) + 64
    }
}

fn header(out: &mut BytesMut, flag: u8, length: usize) {
    out.put_u8(flag);
    // Messages are bounded far below 4 GiB.
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

/// The body of an answer that is a stream of frames.
struct Body<S> {
    frames: Option<S>,
}

impl<S: Stream<Item = Result<Bytes, Status>> + Unpin> http_body::Body for Body<S> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        let Some(frames) = &mut self.frames else {
            return Poll::Ready(None);
        };
        let Poll::Ready(next) = Pin::new(frames).poll_next(context) else {
            return Poll::Pending;
        };
        let status = match next {
            Some(Ok(bytes)) => return Poll::Ready(Some(Ok(http_body::Frame::data(bytes)))),
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.frames = None;
        let mut trailers = http::HeaderMap::new();
        status.add_header(&mut trailers)?;
        Poll::Ready(Some(Ok(http_body::Frame::trailers(trailers))))
    }
}

/// The answer to a call whose messages are frames.
pub(super) fn response<S>(frames: S, zstd: bool) -> http::Response<tonic::body::Body>
where
    S: Stream<Item = Result<Bytes, Status>> + Send + Unpin + 'static,
{
    let body = tonic::body::Body::new(Body {
        frames: Some(frames),
    });
    let mut response = http::Response::new(body);
    let headers = response.headers_mut();
    let value = http::HeaderValue::from_static;
    headers.insert(http::header::CONTENT_TYPE, value("application/grpc"));
    headers.insert("grpc-accept-encoding", value("zstd,identity"));
    if zstd {
        headers.insert("grpc-encoding", value("zstd"));
    }
    response
}

/// Whether who calls takes zstd.
pub(super) fn takes_zstd(headers: &http::HeaderMap) -> bool {
    let accepted = headers.get("grpc-accept-encoding");
    accepted
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.split(',').any(|one| one.trim() == "zstd"))
}

/// Decodes messages of one kind.
#[derive(Debug)]
pub(super) struct Decode<M>(pub std::marker::PhantomData<M>);

impl<M: Message + Default> Decoder for Decode<M> {
    type Item = M;
    type Error = Status;

    /// Small, since there is one for each node all the time; it grows with the message.
    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(512, 8 << 10)
    }

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<M>, Status> {
        let message = M::decode(buffer);
        message
            .map(Some)
            .map_err(|e| Status::internal(e.to_string()))
    }
}
