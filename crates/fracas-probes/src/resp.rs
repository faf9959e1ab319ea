//! A client of Redis's own protocol, RESP2 (<https://redis.io/docs/latest/develop/reference/protocol-spec/>), over one
//! connection. It pipelines nothing and subscribes to nothing.

use std::fmt;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::{connect::Link, tls::Secure, wire::Wire};

/// Longest answer, bytes; `GET` of a longer value fails.
const LONGEST: usize = 256 * 1024;
/// Longest line of an answer, bytes: numbers, and what servers say.
const LONGEST_LINE: usize = 4096;
/// Deepest lists in lists.
const DEEPEST: usize = 8;
/// Most elements of all lists of one answer.
const MOST_ELEMENTS: usize = 10_000;

const STRANGE: &str = "the answer is not Redis's";

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A simple or a bulk string.
    Text(Vec<u8>),
    /// A number.
    Integer(i64),
    /// Nothing: there is no such key.
    Nil,
    /// A list.
    List(Vec<Value>),
    /// What the server refused, inside of a list; alone it is the error of [`Client::command`].
    Error(String),
}

impl fmt::Display for Value {
    /// As text; lists with a space between their elements.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(bytes) => f.write_str(&String::from_utf8_lossy(bytes)),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Nil => Ok(()),
            Self::Error(why) => f.write_str(why),
            Self::List(values) => values.iter().enumerate().try_for_each(|(i, value)| {
                let space = if i > 0 { " " } else { "" };
                write!(f, "{space}{value}")
            }),
        }
    }
}

/// One connection.
pub struct Client<S> {
    wire: Wire<S>,
}

impl Client<Link> {
    /// Connects, with fresh resolution; over TLS from the first byte where that is wanted.
    ///
    /// # Errors
    /// Why there is no connection, in a few words.
    pub(crate) async fn connect(host: &str, port: u16, secure: Option<&Secure>) -> Result<Self, String> {
        let wire = Wire::connect(host, port, LONGEST).await?;
        match secure {
            Some(secure) => Ok(Self { wire: wire.secured(secure).await? }),
            None => Ok(Self { wire }),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// The same over a stream that is there.
    pub fn over(stream: S) -> Self {
        Self { wire: Wire::over(stream, LONGEST) }
    }

    /// Says who we are; without a user it is the server's default one.
    ///
    /// # Errors
    /// It was refused, or the connection broke. What the server says to it is not told: it might repeat the password.
    pub async fn authenticate(&mut self, user: Option<&str>, password: &str) -> Result<(), String> {
        let mut words: Vec<&[u8]> = vec![b"AUTH"];
        words.extend(user.map(str::as_bytes));
        words.push(password.as_bytes());
        match self.ask(&words).await? {
            Value::Text(text) if text == b"OK" => Ok(()),
            Value::Error(why) if why.contains("without any password configured") => {
                Err("the server wants no password: leave it out".into())
            }
            Value::Error(_) => Err("the server refused the password".into()),
            _ => Err(STRANGE.into()),
        }
    }

    /// Sends one command with its arguments, and gives its answer.
    ///
    /// # Errors
    /// What the server refused, all of it; an answer that is none or has no measure; a broken connection.
    pub async fn command(&mut self, words: &[&[u8]]) -> Result<Value, String> {
        match self.ask(words).await? {
            Value::Error(why) => Err(format!("Redis says: {why}")),
            value => Ok(value),
        }
    }

    async fn ask(&mut self, words: &[&[u8]]) -> Result<Value, String> {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.wire.send(&request).await?;
        let mut left = MOST_ELEMENTS;
        self.value(0, &mut left).await
    }

    /// One value, whose lists have at most `left` elements together.
    async fn value(&mut self, depth: usize, left: &mut usize) -> Result<Value, String> {
        let kind = self.wire.byte().await?;
        if !b"+-:$*".contains(&kind) {
            return Err(STRANGE.into());
        }
        let line = self.wire.line(LONGEST_LINE).await?;
        let number = || std::str::from_utf8(&line).ok().and_then(|line| line.parse::<i64>().ok()).ok_or(STRANGE);
        Ok(match kind {
            b'+' => Value::Text(line),
            b'-' => Value::Error(String::from_utf8_lossy(&line).into_owned()),
            b':' => Value::Integer(number()?),
            _ if number()? == -1 => Value::Nil,
            b'$' => {
                let text = self.wire.exact(usize::try_from(number()?).map_err(|_| STRANGE)?).await?;
                if self.wire.exact(2).await? != b"\r\n" {
                    return Err(STRANGE.into());
                }
                Value::Text(text)
            }
            _ => {
                let length = usize::try_from(number()?).map_err(|_| STRANGE)?;
                *left = left.checked_sub(length).filter(|_| depth < DEEPEST).ok_or("an answer of too many elements")?;
                let mut values = Vec::new();
                for _ in 0..length {
                    values.push(Box::pin(self.value(depth + 1, left)).await?);
                }
                Value::List(values)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// What a client makes of these bytes as the answer to one command.
    async fn answered(bytes: &[u8]) -> Result<Value, String> {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        theirs.write_all(bytes).await.unwrap();
        theirs.shutdown().await.unwrap();
        Client::over(ours).command(&[b"ROLE"]).await
    }

    #[tokio::test(flavor = "current_thread")]
    async fn every_kind_of_answer_is_understood() {
        let text = |text: &str| Value::Text(text.into());
        assert_eq!(answered(b"+PONG\r\n").await.unwrap(), text("PONG"));
        assert_eq!(answered(b":-7\r\n").await.unwrap(), Value::Integer(-7));
        assert_eq!(answered(b"$4\r\na\r\nb\r\n").await.unwrap(), text("a\r\nb"));
        assert_eq!(answered(b"$-1\r\n").await.unwrap(), Value::Nil);
        let role = answered(b"*3\r\n$6\r\nmaster\r\n:42\r\n*1\r\n-ERR x\r\n").await.unwrap();
        assert_eq!(role.to_string(), "master 42 ERR x");
        assert_eq!(answered(b"-LOADING data\r\n").await.unwrap_err(), "Redis says: LOADING data");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn answers_without_measure_or_end_are_no_answers() {
        for strange in ["HTTP/1.1 400 Bad Request\r\n", ":x\r\n", "$-2\r\n", "$1\r\nabc", "*-2\r\n", "%1\r\n"] {
            assert_eq!(answered(strange.as_bytes()).await.unwrap_err(), STRANGE, "{strange}");
        }
        for cut in ["", "+PONG", "$5\r\nabc", "*2\r\n:1\r\n"] {
            assert_eq!(answered(cut.as_bytes()).await.unwrap_err(), "connection closed early", "{cut}");
        }
        let long = "an answer of over 262144 bytes";
        assert_eq!(answered(b"$9223372036854775807\r\n").await.unwrap_err(), long);
        assert!(answered("*1\r\n".repeat(20).as_bytes()).await.unwrap_err().contains("elements"));
        assert!(answered(b"*10001\r\n").await.unwrap_err().contains("elements"));
        let nested = [b"*2\r\n".as_slice(), b"*5000\r\n", &b":1\r\n".repeat(5000), b"*4999\r\n"].concat();
        assert!(answered(&nested).await.unwrap_err().contains("elements"), "too many together");
        assert!(answered(&[b'+'; 5000]).await.unwrap_err().contains("a line of over"));
        let many =
            [b"*10000\r\n".as_slice(), &b"$40\r\n0123456789012345678901234567890123456789\r\n".repeat(10_000)].concat();
        assert_eq!(answered(&many).await.unwrap_err(), long);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_command_is_sent_whole_and_a_password_never_comes_back() {
        const WANTED: &str = "*3\r\n$4\r\nAUTH\r\n$2\r\nme\r\n$4\r\nhush\r\n";
        let (ours, mut theirs) = tokio::io::duplex(1 << 10);
        let mut client = Client::over(ours);
        let serve = async {
            let mut asked = vec![0; WANTED.len()];
            theirs.read_exact(&mut asked).await.unwrap();
            theirs.write_all(b"-ERR hush is wrong\r\n").await.unwrap();
            String::from_utf8(asked).unwrap()
        };
        let (seen, asked) = tokio::join!(client.authenticate(Some("me"), "hush"), serve);
        assert_eq!(asked, WANTED);
        assert_eq!(seen.unwrap_err(), "the server refused the password");
    }
}
