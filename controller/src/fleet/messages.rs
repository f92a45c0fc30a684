//! The messages of a node, as they come. Between two of them nothing is kept: tonic's reader keeps 3 KiB for each node,
//! most of it what the last heartbeat was unpacked into.

use std::marker::PhantomData;

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use prost::Message;
use tonic::Status;
use tonic::body::Body;

/// A flag and a length.
const HEADER: usize = 5;

/// Messages of one kind out of the body of a call.
pub(super) struct Messages<M> {
    body: Body,
    /// Whether they may be compressed.
    zstd: bool,
    /// The largest one, in bytes.
    most: usize,
    /// What has come of the next one.
    part: Bytes,
    kind: PhantomData<fn() -> M>,
}

impl<M: Message + Default> Messages<M> {
    pub(super) fn new(body: Body, zstd: bool, most: usize) -> Self {
        Self {
            body,
            zstd,
            most,
            part: Bytes::new(),
            kind: PhantomData,
        }
    }

    /// The next one; `None` if no more come. What has come is not lost if this is dropped.
    ///
    /// # Errors
    /// OUT_OF_RANGE: it is too large. INTERNAL: it is no message, or broke off. Those of the connection.
    pub(super) async fn message(&mut self) -> Result<Option<M>, Status> {
        loop {
            if let Some(message) = self.whole()? {
                return Ok(Some(message));
            }
            let Some(frame) = self.body.frame().await else {
                return match self.part.is_empty() {
                    true => Ok(None),
                    false => Err(Status::internal("the last message broke off")),
                };
            };
            let Ok(data) = frame?.into_data() else {
                continue;
            };
            if self.part.is_empty() {
                self.part = data;
            } else {
                let mut both = BytesMut::with_capacity(self.part.len() + data.len());
                both.extend_from_slice(&self.part);
                both.extend_from_slice(&data);
                self.part = both.freeze();
            }
        }
    }

    fn whole(&mut self) -> Result<Option<M>, Status> {
        let Some((header, _)) = self.part.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let [flag, length @ ..] = *header;
        let length = u32::from_be_bytes(length) as usize;
        let large = || {
            let text = format!("a message is larger than {} bytes", self.most);
            Status::out_of_range(text)
        };
        if length > self.most {
            return Err(large());
        }
        if self.part.len() < HEADER + length {
            return Ok(None);
        }
        let mut message = self.part.split_to(HEADER + length);
        message.advance(HEADER);
        if self.part.is_empty() {
            // An empty one would keep what it was a part of.
            self.part = Bytes::new();
        }
        let unpacked = match flag {
            0 => message,
            1 if self.zstd => match zstd::bulk::decompress(&message, self.most) {
                Ok(unpacked) => unpacked.into(),
                Err(error) => {
                    let text = format!("a message of up to {} bytes: {error}", self.most);
                    return Err(Status::out_of_range(text));
                }
            },
            _ => return Err(Status::internal("a message is packed in an unknown way")),
        };
        let decoded = M::decode(unpacked);
        decoded
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(flag: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).unwrap();
        [&[flag][..], &length.to_be_bytes(), bytes].concat()
    }

    /// Those of a body that comes in pieces of so many bytes.
    async fn read(bytes: &[u8], piece: usize, most: usize) -> (Vec<String>, Option<tonic::Code>) {
        let pieces: Vec<_> = bytes
            .chunks(piece)
            .map(|piece| Ok::<_, Status>(http_body::Frame::data(Bytes::copy_from_slice(piece))))
            .collect();
        let body = http_body_util::StreamBody::new(futures_util::stream::iter(pieces));
        let mut messages = Messages::<String>::new(Body::new(body), true, most);
        let mut all = Vec::new();
        loop {
            match messages.message().await {
                Ok(Some(message)) => all.push(message),
                Ok(None) => return (all, None),
                Err(status) => return (all, Some(status.code())),
            }
        }
    }

    #[tokio::test]
    async fn messages_come_whole_however_they_are_cut() {
        let long = "abc".repeat(1000);
        let texts = [
            "one".to_owned(),
            String::new(),
            long.clone(),
            "two".to_owned(),
        ];
        let packed = zstd::bulk::compress(&long.encode_to_vec(), 3).unwrap();
        let mut bytes = Vec::new();
        for text in &texts {
            match *text == long {
                true => bytes.extend(framed(1, &packed)),
                false => bytes.extend(framed(0, &text.encode_to_vec())),
            }
        }
        for piece in [1, 2, 3, 7, 100, bytes.len()] {
            assert_eq!(read(&bytes, piece, 4096).await, (texts.to_vec(), None));
        }
        // Bounded also after unpacking, and refused before it has come.
        let (all, code) = read(&bytes, 100, 2999).await;
        assert_eq!((all.len(), code), (2, Some(tonic::Code::OutOfRange)));
        let begun = [0, 0, 1, 0, 0, 9];
        assert_eq!(
            read(&begun, 100, 4096).await.1,
            Some(tonic::Code::OutOfRange)
        );
        assert_eq!(
            read(&begun, 100, 1 << 20).await.1,
            Some(tonic::Code::Internal)
        );
        let unknown = framed(2, b"");
        assert_eq!(
            read(&unknown, 100, 4096).await.1,
            Some(tonic::Code::Internal)
        );
    }
}
