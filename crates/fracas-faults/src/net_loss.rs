//! The fault `net-loss`: packets vanish, without a word to whoever sent them.

use fracas_model::{
    catalogue::{FaultInfo, Nature, Params},
    facts::{Facts, Question},
    plan::{Effect, Plan, Refusal},
    shape::{Field, Shape},
};

use crate::{Fault, network};

/// The fault.
pub struct NetLoss;

const HELP: &str = "Each chosen packet is dropped with the chance `percent`, each time anew; 100% cuts the traffic. The \
    loss is silent, as on a wire: the sending program sees no error, TCP finds out by itself and sends again.\n\n\
    With segmentation offload the kernel handles many segments of a TCP stream as one packet, so that one loss may take \
    up to 45 segments in a row; the share of lost packets is right all the same.\n\n\
    The effect is verified by the kernel's own counters of packets that matched and packets that were dropped. Without \
    matching traffic, or with too little of it to tell, the fault is reported as unverified.";

impl Fault for NetLoss {
    fn info(&self) -> FaultInfo {
        let mut params = vec![Field::required(
            "percent",
            Shape::Percent { min: 0.01, max: 100.0 },
            "The chance of each packet to be lost.",
        )];
        params.extend(network::fields());
        FaultInfo {
            name: "net-loss".into(),
            summary: "Lose packets silently, by network, port and protocol.".into(),
            help: format!("{HELP}\n\n{}", network::PACKETS),
            params,
            nature: Nature::Lasting,
            needs: network::needs(),
            example: "{ net-loss: { percent: 10%, to: [10.0.0.0/8], protocol: tcp } }".into(),
        }
    }

    fn asks(&self, _params: &Params) -> Vec<Question> {
        network::asks()
    }

    fn plan(&self, params: &Params, facts: &Facts) -> Result<Plan, Refusal> {
        let percent =
            params.percent("percent").ok_or_else(|| Refusal::new("percent is missing", "give percent: 10%"))?;
        network::plan(params, facts, &Effect::Loss { percent }, "loss", &format!("lose {percent} of the"))
    }
}
