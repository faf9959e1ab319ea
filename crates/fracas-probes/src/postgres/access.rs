//! Whom to ask and who we are to it, as documents say it, and one session of that. What is asked is the caller's.

use fracas_model::{
    catalogue::Params,
    plan::Refusal,
    policy::Policy,
    shape::{Field, Shape},
};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    PrepareFuture, brief,
    connect::{Link, address},
    pgwire::{By, Client, Login},
    secret::{self, Secret},
    tls::{self, Secure},
};

/// A server and a login.
#[derive(Debug)]
pub(crate) struct Access {
    host: String,
    port: u16,
    secure: Option<Secure>,
    user: String,
    database: String,
    password: Option<Secret>,
    by: By,
}

/// The parameters that [`Access::new`] reads.
pub(crate) fn fields() -> Vec<Field> {
    let mut fields = vec![
        Field::required("address", Shape::Address, "Host and port; an IPv6 address in brackets."),
        Field::required("user", Shape::Text { max: 63 }, "Role to be."),
        Field::with_default("database", Shape::Text { max: 63 }, "postgres", "Database to open."),
        Field::optional(
            "password",
            secret::reference(),
            "Password, as { file: PATH } or { env: NAME } on the host that looks.",
        ),
        Field::with_default(
            "passwordBy",
            Shape::choice(&["scram", "md5", "clear"]),
            "scram",
            "The weakest way in which the password is shown to whoever answers on that address.",
        ),
    ];
    fields.extend(tls::fields());
    fields
}

impl Access {
    /// Reads checked parameters.
    ///
    /// # Errors
    /// No address, or a secret that the host's policy does not let be read.
    pub(crate) fn new(params: &Params, policy: &Policy) -> Result<Self, Refusal> {
        let (host, port) = address("postgres", params, 5432)?;
        let text = |name, or: &str| params.text(name).unwrap_or(or).to_owned();
        let secret = |value| Secret::new("postgres: password", value, policy);
        let secure = Secure::wanted("postgres", &host, params)?;
        if params.text("passwordBy") == Some("clear") && secure.as_ref().is_some_and(|secure| !secure.certain()) {
            return Err(Refusal::new(
                "postgres: insecure and passwordBy clear would show the password to whoever answers",
                "name the server's authority with caFile, or let the password be shown by scram",
            ));
        }
        Ok(Self {
            host,
            port,
            secure,
            user: text("user", ""),
            database: text("database", "postgres"),
            password: params.0.get("password").map(secret).transpose()?,
            by: match params.text("passwordBy") {
                Some("clear") => By::Clear,
                Some("md5") => By::Md5,
                _ => By::Scram,
            },
        })
    }

    /// Reads what TLS needs of the host.
    pub(crate) fn prepare(&self) -> PrepareFuture {
        Box::pin(tls::prepare(self.secure.clone()))
    }

    /// Opens a session, with fresh resolution, and asks in it. No reason that is given holds the password.
    pub(crate) async fn session<T>(
        &self,
        ask: impl AsyncFnOnce(&mut Client<Link>) -> Result<T, String>,
    ) -> Result<T, String> {
        let password = self.password().await?;
        let client = Client::connect(&self.host, self.port, self.secure.as_ref()).await;
        let client = client.map_err(|why| brief(secret::hushed(why, password.as_deref())))?;
        self.over(client, password.as_deref(), &nonce()?, ask).await
    }

    /// Reads the password, if there is one.
    pub(super) async fn password(&self) -> Result<Option<String>, String> {
        match &self.password {
            Some(secret) => Ok(Some(secret.reveal().await.map_err(brief)?)),
            None => Ok(None),
        }
    }

    /// The same over a connection that is made, with a nonce that is new for each session.
    pub(super) async fn over<S: AsyncRead + AsyncWrite + Unpin, T>(
        &self,
        mut client: Client<S>,
        password: Option<&str>,
        nonce: &str,
        ask: impl AsyncFnOnce(&mut Client<S>) -> Result<T, String>,
    ) -> Result<T, String> {
        let login = Login { user: &self.user, database: &self.database, password, by: self.by };
        let asked = async {
            client.authenticate(login, nonce).await?;
            ask(&mut client).await
        };
        // Before it is cut: half a password is one too.
        asked.await.map_err(|why| brief(secret::hushed(why, password)))
    }
}

/// Random and printable, new for each session.
fn nonce() -> Result<String, String> {
    let mut bytes = [0; 18];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "the host gives no random bytes")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
