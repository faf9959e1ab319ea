//! The fault `net-delay`: packets are held for a while.

use fracas_model::{
    catalogue::{FaultInfo, Nature, Params},
    facts::{Facts, Question},
    plan::{Effect, Plan, Refusal},
    shape::{Field, Shape},
    units::Dur,
};

use crate::{Fault, network};

/// The fault.
pub struct NetDelay;

const LONGEST: Dur = Dur::from_secs(60);

const HELP: &str = "Each chosen packet is held for `delay`; with `jitter` for a time drawn evenly from delay - jitter to \
    delay + jitter, so that packets may overtake each other by that much. One direction of a conversation is delayed, \
    which adds `delay` to every round trip.\n\n\
    The effect is verified by how long packets really were held, beside the round-trip time that the kernel measures on \
    matching TCP connections. Without matching traffic the fault is reported as unverified; when more packets come than \
    can be held, the rest passes undelayed and the fault is reported as ineffective.";

impl Fault for NetDelay {
    fn info(&self) -> FaultInfo {
        let mut params = vec![
            Field::required("delay", Shape::duration(Dur::from_ms(1), LONGEST), "How long each packet is held."),
            Field::with_default(
                "jitter",
                Shape::duration(Dur::ZERO, LONGEST),
                "0s",
                "Half the spread of the delay; at most `delay`.",
            ),
        ];
        params.extend(network::fields());
        FaultInfo {
            name: "net-delay".into(),
            summary: "Delay packets, by network, port and protocol.".into(),
            help: format!("{HELP}\n\n{}", network::PACKETS),
            params,
            nature: Nature::Lasting,
            needs: network::needs(),
            example: "{ net-delay: { delay: 200ms, jitter: 20ms, to: [10.0.0.0/8], ports: [5432] } }".into(),
        }
    }

    fn asks(&self, _params: &Params) -> Vec<Question> {
        network::asks()
    }

    fn plan(&self, params: &Params, facts: &Facts) -> Result<Plan, Refusal> {
        let delay = params.duration("delay").ok_or_else(|| Refusal::new("delay is missing", "give delay: 200ms"))?;
        let jitter = params.duration("jitter").unwrap_or_default();
        if jitter > delay {
            return Err(Refusal::new(
                format!("jitter {jitter} is longer than the delay of {delay}"),
                "no packet can be let go before it came: make jitter at most the delay",
            ));
        }
        let effect = Effect::Delay { delay, jitter };
        let spread = if jitter == Dur::ZERO { String::new() } else { format!(" ± {jitter}") };
        network::plan(params, facts, &effect, "delay", &format!("hold for {delay}{spread}"))
    }
}
