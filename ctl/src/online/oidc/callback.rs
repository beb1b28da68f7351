//! Where the browser brings the provider's answer: an address of this machine itself, at a port that nobody knows before (RFC 8252, 7.3).
//!
//! Any page that the person has open can send a browser here too, and any program of the machine can connect. So only an answer with the state
//! that this command drew counts; whatever else comes is answered with an error and otherwise ignored, and keeps nobody waiting.

use std::time::Duration;

use penstock_proto::https::decoded;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The path that is registered with the provider.
const PATH: &str = "/callback";
/// Largest head of a request that is read, bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long a connection may take.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(5);
/// Connections at once.
const CONNECTIONS_MAX: usize = 16;

/// What the provider answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The person let this command in.
    Code(String),
    /// They did not, or the provider does not.
    Denied(String),
}

/// What an answer has to say.
#[derive(Debug, Clone)]
pub(super) struct ExpectedAnswer {
    pub(super) state: String,
    pub(super) issuer: String,
}

impl ExpectedAnswer {
    /// The provider's answer in the head of a request; else why it is none.
    fn judge(&self, head: &str) -> Result<Verdict, &'static str> {
        let line = head.lines().next().unwrap_or_default();
        let mut words = line.split(' ');
        let (Some("GET"), Some(target), Some(_)) = (words.next(), words.next(), words.next()) else {
            return Err("not a request that a browser makes");
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if path != PATH {
            return Err("there is nothing at this address");
        }
        let pairs = decoded(query);
        let one = |name: &str| {
            let mut found = pairs.iter().filter(|(own, _)| own == name);
            let first = found.next().map(|(_, value)| value.as_str());
            first.filter(|_| found.next().is_none())
        };
        if one("state") != Some(&self.state) {
            return Err("this is not an answer to the sign-in that waits here");
        }
        // Whose answer it is, where the provider says so (RFC 9207).
        if pairs.iter().any(|(name, _)| name == "iss") && one("iss") != Some(&self.issuer) {
            return Err("this is the answer of another provider");
        }
        match (one("code"), one("error")) {
            (Some(code), None) if !code.is_empty() => Ok(Verdict::Code(code.to_owned())),
            (None, Some(error)) => Ok(Verdict::Denied(match one("error_description") {
                Some(words) => format!("{error}: {words}"),
                None => error.to_owned(),
            })),
            _ => Err("this is neither a code nor an error"),
        }
    }
}

/// Waits at the address.
#[derive(Debug)]
pub(super) struct Callback {
    listener: TcpListener,
    port: u16,
}

impl Callback {
    /// Begins to listen.
    pub(super) async fn listen() -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port })
    }

    /// Where the browser is sent.
    pub(super) fn redirect_uri(&self) -> String {
        format!("http://127.0.0.1:{}{PATH}", self.port)
    }

    /// The provider's answer, once it comes.
    pub(super) async fn answer(self, expected: &ExpectedAnswer) -> Verdict {
        let mut attending = JoinSet::new();
        loop {
            tokio::select! {
                arrived = self.listener.accept(), if attending.len() < CONNECTIONS_MAX => {
                    if let Ok((stream, _)) = arrived {
                        let expected = expected.clone();
                        attending.spawn(tokio::time::timeout(CONNECTION_TIME_MAX, async move { attend(stream, &expected).await }));
                    }
                }
                Some(ended) = attending.join_next() => {
                    if let Ok(Ok(Some(verdict))) = ended {
                        return verdict;
                    }
                }
            }
        }
    }
}

async fn attend(mut stream: TcpStream, expected: &ExpectedAnswer) -> Option<Verdict> {
    let mut head = Vec::new();
    let mut part = [0; 1024];
    let is_whole = |head: &[u8]| head.windows(4).any(|end| end == b"\r\n\r\n");
    while !is_whole(&head) && head.len() < HEAD_BYTES_MAX {
        match stream.read(&mut part).await {
            Ok(0) | Err(_) => break,
            Ok(count) => head.extend_from_slice(part.get(..count).unwrap_or_default()),
        }
    }
    let judged = match is_whole(&head) {
        true => expected.judge(&String::from_utf8_lossy(&head)),
        false => Err("not a request that a browser makes"),
    };
    let (status, words) = match &judged {
        Ok(Verdict::Code(_)) => (
            "200 OK",
            "You are signed in. Go back to the terminal; this page can be closed.",
        ),
        Ok(Verdict::Denied(_)) => (
            "200 OK",
            "The provider did not sign you in. The terminal says why.",
        ),
        Err(why) => ("400 Bad Request", *why),
    };
    let body = format!("<!doctype html><meta charset=\"utf-8\"><title>Penstock</title><p>{words}</p>\n");
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         Referrer-Policy: no-referrer\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    // Whether the page is seen is no concern of the sign-in.
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
    judged.ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn expected() -> ExpectedAnswer {
        ExpectedAnswer {
            state: "drawn".to_owned(),
            issuer: "https://login.example".to_owned(),
        }
    }

    #[test]
    fn only_an_answer_with_the_state_that_was_drawn_and_of_this_provider_counts() {
        let judge = |target: &str| expected().judge(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(
            judge("/callback?code=a%2Fb&state=drawn&iss=https%3A%2F%2Flogin.example"),
            Ok(Verdict::Code("a/b".to_owned()))
        );
        assert_eq!(
            judge("/callback?state=drawn&code=c"),
            Ok(Verdict::Code("c".to_owned()))
        );
        assert_eq!(
            judge("/callback?error=access_denied&error_description=no+one&state=drawn"),
            Ok(Verdict::Denied("access_denied: no one".to_owned()))
        );
        for foreign in [
            "/callback?code=c",
            "/callback?code=c&state=guessed",
            "/callback?code=c&state=drawn&state=drawn",
            "/callback?code=c&code=d&state=drawn",
            "/callback?code=c&error=e&state=drawn",
            "/callback?code=&state=drawn",
            "/callback?error=access_denied&state=guessed",
            "/callback?code=c&state=drawn&iss=https%3A%2F%2Fother.example",
            "/callback?code=c&state=drawn&iss=https%3A%2F%2Flogin.example&iss=x",
            "/?code=c&state=drawn",
            "/favicon.ico",
        ] {
            judge(foreign).unwrap_err();
        }
        expected()
            .judge("POST /callback?code=c&state=drawn HTTP/1.1")
            .unwrap_err();
    }

    proptest! {
        #[test]
        fn no_request_that_lacks_the_state_is_an_answer(head in "(GET )?/?(callback)?[?]?[ -~]{0,60}") {
            prop_assume!(!head.contains("drawn"));
            prop_assert!(expected().judge(&head).is_err());
        }
    }

    #[tokio::test]
    async fn silent_endless_and_foreign_connections_keep_nobody_waiting() {
        let callback = Callback::listen().await.unwrap();
        let address = ("127.0.0.1", callback.port);
        let waiting = tokio::spawn(async move { callback.answer(&expected()).await });
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_MAX - 2 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let asked = async |bytes: Vec<u8>| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer).await;
            answer
        };
        let endless = vec![b'x'; HEAD_BYTES_MAX];
        assert!(asked(endless).await.starts_with("HTTP/1.1 400"));
        let foreign = b"GET /callback?code=evil&state=guessed HTTP/1.1\r\n\r\n".to_vec();
        assert!(asked(foreign).await.starts_with("HTTP/1.1 400"));
        let own = b"GET /callback?code=good&state=drawn HTTP/1.1\r\n\r\n".to_vec();
        assert!(asked(own).await.contains("You are signed in"));
        assert_eq!(waiting.await.unwrap(), Verdict::Code("good".to_owned()));
    }
}
