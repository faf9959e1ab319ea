//! Looks that are compared with what a document tolerates, whatever probe looks. Comparing itself is in the model.

use std::{pin::Pin, rc::Rc};

use fracas_model::{
    catalogue::{Params, ProbeInfo},
    plan::Refusal,
    tolerance::{LATENCY, Tolerance},
};
use tokio::time::Instant;

use crate::{Blocking, LookFuture, Lookout, PrepareFuture, brief};

struct Tolerated {
    lookout: Box<dyn Lookout>,
    tolerance: Tolerance,
}

/// The lookout, each of whose looks fails besides when a field of its reading is not what the parameters want. What it is
/// told between two looks has no fields to compare, so that with a tolerance nothing is.
///
/// # Errors
/// What they want makes no sense.
pub(crate) fn tolerated(
    info: &ProbeInfo,
    params: &Params,
    lookout: Box<dyn Lookout>,
) -> Result<Box<dyn Lookout>, Refusal> {
    Ok(match Tolerance::read(&info.reading, params)? {
        Some(tolerance) => Box::new(Rc::new(Tolerated { lookout, tolerance })),
        None => lookout,
    })
}

impl Lookout for Rc<Tolerated> {
    fn prepare(&self) -> PrepareFuture {
        self.lookout.prepare()
    }

    fn stirred(&self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        self.lookout.stirred()
    }

    fn look(&self) -> LookFuture {
        let this = self.clone();
        Box::pin(async move {
            let begun = Instant::now();
            let values = this.lookout.look().await?;
            let values = values.with(LATENCY, begun.elapsed());
            if !this.tolerance.is_slow() {
                this.tolerance.judge(&values).map_err(brief)?;
                return Ok(values);
            }
            let tolerance = this.tolerance.clone();
            Blocking::start(move || tolerance.judge(&values).map_err(brief).map(|()| values)).done().await?
        })
    }
}

/// What becomes of a look of this probe when it is compared with what the parameters want, for fuzzing.
#[cfg(fuzzing)]
pub(crate) fn compared(probe: &dyn crate::Probe, params: &Params, seen: crate::Seen) -> crate::Seen {
    let values = seen?;
    if let Some(tolerance) = Tolerance::read(&probe.info().reading, params).map_err(|refusal| refusal.why)? {
        tolerance.judge(&values).map_err(brief)?;
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use fracas_model::{
        policy::Policy,
        shape::{Field, Shape},
        tolerance::{Measured, ReadingField, Values},
        units::Dur,
    };
    use serde_json::json;

    use super::*;
    use crate::{Probe, ready};

    /// Sees what its parameter says.
    struct Told;

    struct Text(String);

    impl Probe for Told {
        fn info(&self) -> ProbeInfo {
            ProbeInfo {
                name: "told".into(),
                summary: String::new(),
                help: String::new(),
                params: vec![Field::required("say", Shape::Text { max: 64 }, "What to see.")],
                reading: vec![ReadingField::text("said", "What was seen.")],
                example: String::new(),
            }
        }

        fn ready(&self, params: &Params, _policy: &Policy) -> Result<Box<dyn Lookout>, Refusal> {
            Ok(Box::new(Text(params.text("say").unwrap_or_default().to_owned())))
        }
    }

    impl Lookout for Text {
        fn look(&self) -> LookFuture {
            let said = self.0.clone();
            Box::pin(async move {
                tokio::time::sleep(std::time::Duration::from_millis(30)).await;
                if said == "down" { Err("down".into()) } else { Ok(Values::new().with("said", said)) }
            })
        }
    }

    async fn looked(params: serde_json::Value) -> crate::Seen {
        ready(&Told, &serde_json::from_value(params).unwrap(), &Policy::builtin()).unwrap().look().await
    }

    #[tokio::test(flavor = "current_thread")]
    async fn every_look_is_compared_and_its_length_is_measured_here() {
        let all = json!({ "latency": { "min": "30ms" }, "said": { "matches": "^y" } });
        let values = looked(json!({ "say": "yes", "tolerance": all })).await.unwrap();
        let Some(Measured::Duration(latency)) = values.get("latency") else { panic!("{values:?}") };
        assert!(*latency >= Dur::from_ms(30), "{latency}");
        assert_eq!(looked(json!({ "say": "no", "tolerance": all })).await.unwrap_err(), "said does not match ^y");
        let quick = json!({ "latency": { "max": "20ms" } });
        let why = looked(json!({ "say": "yes", "tolerance": quick })).await.unwrap_err();
        assert!(why.starts_with("latency was ") && why.ends_with(", at most 20ms wanted"), "{why}");
        assert_eq!(looked(json!({ "say": "down", "tolerance": quick })).await.unwrap_err(), "down");
        looked(json!({ "say": "yes" })).await.unwrap();
        let long = json!({ "said": { "equals": "x".repeat(200) } });
        assert!(looked(json!({ "say": "yes", "tolerance": long })).await.unwrap_err().len() <= 120);
    }

    #[test]
    fn an_agent_that_does_not_know_a_field_says_so() {
        let params = json!({ "say": "x", "tolerance": { "newer": { "min": 1 } } });
        let refusal = ready(&Told, &serde_json::from_value(params).unwrap(), &Policy::builtin()).err().unwrap();
        assert!(refusal.why.contains("newer"), "{refusal:?}");
    }
}
