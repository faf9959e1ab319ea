//! `fracas login`, `logout` and `context`: which controllers this person signs in to. A token is tried before it is kept.

use std::{
    fs,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde_json::json;

use crate::{
    Session,
    args::{ContextCommand, LoginArgs},
    client::{Client, SignInClient},
    context::{self, Access},
    contexts::{Contexts, ContextsError, NewContext, name_for},
    error::CliError,
    exit,
};

/// A provider is asked at most so often, whatever it says.
const SHORTEST: Duration = Duration::from_millis(200);

impl From<ContextsError> for CliError {
    fn from(error: ContextsError) -> Self {
        match error {
            ContextsError::Failed { .. } => Self::failure(error.to_string()),
            _ => Self::usage(error.to_string()),
        }
    }
}

pub(crate) async fn login(session: &Session<'_>, given: &LoginArgs) -> Result<u8, CliError> {
    let contexts = contexts(session)?;
    let address = session.global.controller.clone();
    let address = address.ok_or_else(|| CliError::usage("say where: --controller HOST:PORT"))?;
    let ca = session.global.ca.clone();
    let ca = ca.ok_or_else(|| {
        CliError::usage("say whom to trust: --ca FILE, the ca.pem of that controller's data directory")
    })?;
    let ca_pem = fs::read(&ca).map_err(|e| CliError::file("read", &ca, &e))?;
    let mut access = Access {
        address,
        ca_pem,
        token: String::new(),
        ca_source: ca.display().to_string(),
        token_source: String::new(),
    };
    (access.token, access.token_source) = match given_token(session)? {
        Some(given) => given,
        None => match signed_in(session, &SignInClient::new(&access)?).await? {
            Some(token) => (token, "the sign-in".to_owned()),
            None => typed()?,
        },
    };
    let me = Client::new(&access)?.who_am_i().await?;
    let name = given.name.clone().unwrap_or_else(|| name_for(&access.address));
    let new = NewContext { controller: &access.address, ca_pem: &access.ca_pem, token: &access.token };
    let file = contexts.keep(&name, &new)?;
    contexts.choose(&name)?;
    let who = if me.handle.is_empty() { me.id.to_string() } else { me.handle.clone() };
    if session.output.json {
        session.output.json("fracas.login/v1", &json!({ "context": name, "file": file, "person": me }))?;
    } else {
        session.output.line(&format!("signed in to {} as {who}; context {name}", access.address))?;
    }
    Ok(exit::PASS)
}

pub(crate) fn logout(session: &Session<'_>, name: Option<&str>) -> Result<u8, CliError> {
    let contexts = contexts(session)?;
    let current = || contexts.current().ok_or_else(|| CliError::usage("signed in nowhere: nothing to do"));
    let name = name.map_or_else(current, |name| Ok(name.to_owned()))?;
    contexts.remove(&name)?;
    if session.output.json {
        session.output.json("fracas.logout/v1", &json!({ "context": name }))?;
    } else {
        session.output.line(&format!("context {name} is removed with its token"))?;
        session.output.notice("the token itself is good until it expires: fracas people token revoke");
    }
    Ok(exit::PASS)
}

pub(crate) fn context(session: &Session<'_>, command: ContextCommand) -> Result<u8, CliError> {
    let contexts = contexts(session)?;
    match command {
        ContextCommand::List => {
            let (names, current) = (contexts.names(), contexts.current());
            if session.output.json {
                session.output.json("fracas.contexts/v1", &json!({ "contexts": names, "current": current }))?;
            } else if names.is_empty() {
                session.output.notice("no context yet; make one: fracas login --controller HOST:PORT --ca FILE");
            }
            for name in names.iter().filter(|_| !session.output.json) {
                let mark = if Some(name) == current.as_ref() { "*" } else { " " };
                session.output.line(&format!("{mark} {name}"))?;
            }
        }
        ContextCommand::Use { name } => {
            contexts.choose(&name)?;
            if session.output.json {
                session.output.json("fracas.context/v1", &json!({ "current": name }))?;
            } else {
                session.output.line(&format!("commands now mean context {name}"))?;
            }
        }
    }
    Ok(exit::PASS)
}

fn contexts(session: &Session<'_>) -> Result<Contexts, CliError> {
    let found = context::contexts(&session.world.surroundings);
    found.ok_or_else(|| CliError::failure("no place for contexts: neither XDG_CONFIG_HOME nor HOME is set"))
}

/// From a file, the environment, or standard input where that was asked for.
fn given_token(session: &Session<'_>) -> Result<Option<(String, String)>, CliError> {
    match &session.global.token_file {
        Some(file) if file.as_os_str() == "-" => typed().map(Some),
        Some(file) => {
            let text = fs::read_to_string(file).map_err(|e| CliError::file("read", file, &e))?;
            Ok(Some((text.trim().to_owned(), file.display().to_string())))
        }
        None => Ok(session.world.surroundings.token.clone().map(|token| (token, "FRACAS_TOKEN".to_owned()))),
    }
}

/// By the controller's identity provider; `None` where it knows none.
async fn signed_in(session: &Session<'_>, client: &SignInClient) -> Result<Option<String>, CliError> {
    let Some(code) = client.begin().await? else { return Ok(None) };
    if session.output.json {
        let told = json!({
            "userCode": code.user_code,
            "verificationUri": code.verification_uri,
            "verificationUriComplete": code.verification_uri_complete,
            "expiresSeconds": code.expires_in.as_secs(),
        });
        session.output.json("fracas.signIn/v1", &told)?;
    } else {
        let place = match code.verification_uri_complete.as_str() {
            "" => code.verification_uri.clone(),
            complete => complete.to_owned(),
        };
        let _ = writeln!(
            io::stderr().lock(),
            "open {place}\nand agree to the code {}; waiting for at most {} s, Ctrl-C gives up",
            code.user_code,
            code.expires_in.as_secs()
        );
    }
    let until = Instant::now() + code.expires_in;
    let mut pause = code.interval;
    loop {
        tokio::time::sleep(pause).await;
        match client.finish(&code.handle).await {
            Ok(Ok(token)) => return Ok(Some(token)),
            Ok(Err(wait)) => pause = wait.max(SHORTEST),
            // The network, or a restart of the provider: the code is good all the same.
            Err(error) if error.passing() && Instant::now() < until => pause = code.interval.max(SHORTEST),
            Err(error) => return Err(error.into()),
        }
    }
}

/// One line of standard input, or of whoever sits there.
fn typed() -> Result<(String, String), CliError> {
    let mut line = String::new();
    if io::stdin().is_terminal() {
        let _ = write!(io::stderr().lock(), "Token (it is not shown): ");
        unseen(|| io::stdin().lock().read_line(&mut line))?;
        let _ = writeln!(io::stderr().lock());
    } else {
        io::stdin().lock().read_line(&mut line)?;
    }
    match line.trim() {
        "" => Err(CliError::usage("no token: give --token-file FILE, FRACAS_TOKEN, or one line on standard input")),
        token => Ok((token.to_owned(), "standard input".to_owned())),
    }
}

/// Reads without showing what is typed.
fn unseen<T>(read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let before = tcgetattr(io::stdin())?;
    let mut quiet = before.clone();
    quiet.local_modes.remove(LocalModes::ECHO);
    tcsetattr(io::stdin(), OptionalActions::Flush, &quiet)?;
    let done = read();
    tcsetattr(io::stdin(), OptionalActions::Flush, &before)?;
    done
}
