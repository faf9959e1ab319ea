//! Bytes from and to a peer that may say anything: each answer is read piece by piece within a budget. It knows no protocol.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};

use crate::{
    connect::{Link, connect, world},
    tls::Secure,
};

/// A stream, and how many bytes of the present answer may still come.
pub(crate) struct Wire<S> {
    stream: BufReader<S>,
    left: usize,
    most: usize,
}

impl Wire<Link> {
    /// A fresh connection whose answers have at most `most` bytes each.
    pub(crate) async fn connect(host: &str, port: u16, most: usize) -> Result<Self, String> {
        Ok(Self::over(Box::new(connect(host, port).await?), most))
    }

    /// The same connection, secured from here on. What came in clear beyond what was read belongs to nobody: whoever sits
    /// between us and the server might have said it.
    pub(crate) async fn secured(self, secure: &Secure) -> Result<Self, String> {
        if !self.stream.buffer().is_empty() {
            return Err("the server says more before TLS than it was asked".into());
        }
        let stream = secure.over(self.stream.into_inner(), &[]).await?;
        Ok(Self::over(Box::new(stream), self.most))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// The same over a stream that is there.
    pub(crate) fn over(stream: S, most: usize) -> Self {
        Self { stream: BufReader::new(stream), left: most, most }
    }

    /// Sends all of this; what is read next is a new answer with a whole budget.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.left = self.most;
        self.stream.write_all(bytes).await.map_err(|e| world(&e))?;
        self.stream.flush().await.map_err(|e| world(&e))
    }

    /// The next byte.
    pub(crate) async fn byte(&mut self) -> Result<u8, String> {
        self.spend(1)?;
        self.stream.read_u8().await.map_err(|e| world(&e))
    }

    /// The next `length` bytes: nothing is set aside for more than the budget.
    pub(crate) async fn exact(&mut self, length: usize) -> Result<Vec<u8>, String> {
        self.spend(length)?;
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).await.map_err(|e| world(&e))?;
        Ok(bytes)
    }

    /// What comes before the next CR LF, at most `longest` bytes.
    pub(crate) async fn line(&mut self, longest: usize) -> Result<Vec<u8>, String> {
        let mut line = Vec::new();
        loop {
            line.push(self.byte().await?);
            if line.ends_with(b"\r\n") {
                line.truncate(line.len() - 2);
                return Ok(line);
            }
            if line.len() > longest + 1 {
                return Err(format!("a line of over {longest} bytes"));
            }
        }
    }

    fn spend(&mut self, bytes: usize) -> Result<(), String> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| format!("an answer of over {} bytes", self.most))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn an_answer_has_a_budget_and_a_line_an_end() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut wire = Wire::over(ours, 8);
        theirs.write_all(b"ab\r\ncdefghij").await.unwrap();
        assert_eq!(wire.line(2).await.unwrap(), b"ab");
        assert_eq!(wire.exact(5).await.unwrap_err(), "an answer of over 8 bytes");
        assert_eq!(wire.exact(4).await.unwrap(), b"cdef");
        assert!(wire.byte().await.is_err());
        wire.send(b"?").await.unwrap();
        assert_eq!(wire.byte().await.unwrap(), b'g');
        assert!(wire.line(0).await.is_err(), "hi ends no line");
        assert_eq!(wire.byte().await.unwrap(), b'j');
        drop(theirs);
        assert_eq!(wire.byte().await.unwrap_err(), "connection closed early");
    }
}
