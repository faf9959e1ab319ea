//! Whom to ask and who we are to it, as documents say it, and one connection of that. What is asked is the caller's.

use fracas_model::{
    catalogue::Params,
    plan::Refusal,
    policy::Policy,
    shape::{Field, Shape},
};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    PrepareFuture, brief,
    connect::{Link, address},
    resp::{Client, Value},
    secret::{self, Secret},
    tls::{self, Secure},
};

/// A server and who we are to it.
#[derive(Debug)]
pub(crate) struct Access {
    host: String,
    port: u16,
    secure: Option<Secure>,
    user: Option<String>,
    password: Option<Secret>,
    database: Option<i64>,
}

/// The parameters that [`Access::new`] reads.
pub(crate) fn fields() -> Vec<Field> {
    let mut fields = vec![
        Field::required("address", Shape::Address, "Host and port; an IPv6 address in brackets."),
        Field::optional("user", Shape::Text { max: 128 }, "User to be (Redis 6 and later); needs a password."),
        Field::optional(
            "password",
            secret::reference(),
            "Password, as { file: PATH } or { env: NAME } on the host that looks.",
        ),
        Field::optional("database", Shape::Integer { min: 0, max: 65_535 }, "Number of the database to select."),
    ];
    fields.extend(tls::fields());
    fields
}

impl Access {
    /// Reads checked parameters.
    ///
    /// # Errors
    /// No address, a user without a password, or a secret that the host's policy does not let be read.
    pub(crate) fn new(params: &Params, policy: &Policy) -> Result<Self, Refusal> {
        let (host, port) = address("redis", params, 6379)?;
        let secure = Secure::wanted("redis", &host, params)?;
        let secret = |value| Secret::new("redis: password", value, policy);
        let password = params.0.get("password").map(secret).transpose()?;
        let user = params.text("user").map(str::to_owned);
        if user.is_some() && password.is_none() {
            return Err(Refusal::new(
                "redis: a user without a password",
                "give the password by reference, or drop user",
            ));
        }
        if password.is_some() && secure.as_ref().is_some_and(|secure| !secure.certain()) {
            return Err(Refusal::new(
                "redis: insecure would show the password to whoever answers",
                "name the server's authority with caFile, or look without a password",
            ));
        }
        Ok(Self { host, port, secure, user, password, database: params.integer("database") })
    }

    /// Reads what TLS needs of the host.
    pub(crate) fn prepare(&self) -> PrepareFuture {
        Box::pin(tls::prepare(self.secure.clone()))
    }

    /// Connects, with fresh resolution, and asks over it. A server that was told the password may repeat it in any answer:
    /// no reason that is given holds it, and what is made of an answer is hushed with the function that is handed on.
    pub(crate) async fn session<T>(
        &self,
        ask: impl AsyncFnOnce(&mut Client<Link>, &dyn Fn(String) -> String) -> Result<T, String>,
    ) -> Result<T, String> {
        let password = self.password().await?;
        let client = Client::connect(&self.host, self.port, self.secure.as_ref()).await;
        let client = client.map_err(|why| brief(secret::hushed(why, password.as_deref())))?;
        self.over(client, password.as_deref(), ask).await
    }

    /// Reads the password, if there is one.
    pub(super) async fn password(&self) -> Result<Option<String>, String> {
        match &self.password {
            Some(secret) => Ok(Some(secret.reveal().await.map_err(brief)?)),
            None => Ok(None),
        }
    }

    /// The same over a connection that is made.
    pub(super) async fn over<S: AsyncRead + AsyncWrite + Unpin, T>(
        &self,
        mut client: Client<S>,
        password: Option<&str>,
        ask: impl AsyncFnOnce(&mut Client<S>, &dyn Fn(String) -> String) -> Result<T, String>,
    ) -> Result<T, String> {
        let hushed = |why| secret::hushed(why, password);
        let asked = async {
            if let Some(password) = password {
                client.authenticate(self.user.as_deref(), password).await?;
            }
            if let Some(database) = self.database {
                match client.command(&[b"SELECT", database.to_string().as_bytes()]).await? {
                    Value::Text(text) if text == b"OK" => {}
                    other => return Err(format!("answered {:?} to SELECT", other.to_string())),
                }
            }
            ask(&mut client, &hushed).await
        };
        // Of a reason that is cut already a part of it would be left.
        asked.await.map_err(|why| brief(hushed(why)))
    }
}
