//! What a registration must look like. Every error names the instance and the field.

use equipoise_proto::v1::{Instance, RegisterRequest};
use std::collections::BTreeSet;
use tonic::Status;
use tonic::codegen::http::Uri;

/// The longest name, characters: that of a DNS name.
const LIMIT_NAME: usize = 253;
/// Labels and GPUs of one instance.
const LIMIT_LABELS: usize = 64;
/// Instances of one node.
const LIMIT_INSTANCES: usize = 4096;

fn invalid(what: impl Into<String>) -> Status {
    Status::invalid_argument(what)
}

/// Checks a name of an instance, pool, node, router or control plane.
pub(crate) fn name(field: &str, name: &str) -> Result<(), Status> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_' | '/');
    if name.is_empty() {
        return Err(invalid(format!(
            "{field} is empty: give it 1 to {LIMIT_NAME} characters of [a-z0-9.-_/]"
        )));
    }
    if name.len() > LIMIT_NAME {
        return Err(invalid(format!(
            "{field} has {} characters: at most {LIMIT_NAME} are allowed",
            name.len()
        )));
    }
    if !name.chars().all(allowed) {
        return Err(invalid(format!(
            "{field} {name:?} holds a character outside [a-z0-9.-_/]"
        )));
    }
    Ok(())
}

/// Checks the id that a process gave itself; it may be absent.
pub(crate) fn process_id(field: &str, id: &str) -> Result<(), Status> {
    if id.len() > LIMIT_NAME {
        return Err(invalid(format!(
            "{field} has {} characters: at most {LIMIT_NAME} are allowed",
            id.len()
        )));
    }
    Ok(())
}

/// Checks a registration and brings it into its normal form: the node's name in each instance, at least one GPU.
pub(crate) fn registration(request: RegisterRequest) -> Result<(String, Vec<Instance>), Status> {
    let RegisterRequest {
        node,
        mut instances,
        agent,
        ..
    } = request;
    name("node", &node)?;
    process_id("agent", &agent)?;
    if instances.len() > LIMIT_INSTANCES {
        return Err(invalid(format!(
            "instances: {} on one node, at most {LIMIT_INSTANCES}",
            instances.len()
        )));
    }
    let mut names = BTreeSet::new();
    for instance in &mut instances {
        check(instance)?;
        if !names.insert(instance.name.clone()) {
            return Err(invalid(format!("instances: the name {:?} comes twice", instance.name)));
        }
        instance.node.clone_from(&node);
        if let Some(tier) = &mut instance.tier {
            tier.tensor_parallel = tier.tensor_parallel.max(1);
        }
    }
    Ok((node, instances))
}

fn check(instance: &Instance) -> Result<(), Status> {
    name("instances[].name", &instance.name)?;
    let at = |field: &str| format!("instance {:?}: {field}", instance.name);
    name(&at("pool"), &instance.pool)?;
    let model = instance.model.as_ref().filter(|model| !model.name.is_empty());
    let Some(model) = model else {
        return Err(invalid(at("model.name is empty: name the model that clients ask for")));
    };
    if let Some(quality) = model.quality.filter(|quality| !(0.0..=1.0).contains(quality)) {
        return Err(invalid(at(&format!(
            "model.quality is {quality}: it is a probability, in [0, 1]"
        ))));
    }
    let prices = [
        ("input_usd_per_mtok", model.input_usd_per_mtok),
        ("output_usd_per_mtok", model.output_usd_per_mtok),
    ];
    for (field, price) in prices {
        if let Some(price) = price.filter(|price| !(price.is_finite() && *price >= 0.0)) {
            return Err(invalid(at(&format!(
                "model.{field} is {price}: a price is finite and not negative"
            ))));
        }
    }
    endpoint(&instance.endpoint).map_err(|why| invalid(at(&format!("endpoint {:?} {why}", instance.endpoint))))?;
    if instance.labels.len() > LIMIT_LABELS || instance.gpus.len() > LIMIT_LABELS {
        return Err(invalid(at(&format!("more than {LIMIT_LABELS} labels or gpus"))));
    }
    if let Some(limits) = &instance.limits {
        let limits = [
            ("max_num_seqs", limits.max_num_seqs),
            ("max_num_batched_tokens", limits.max_num_batched_tokens),
            ("block_tokens", limits.block_tokens),
            ("num_gpu_blocks", limits.num_gpu_blocks),
        ];
        if let Some((field, _)) = limits.iter().find(|(_, limit)| *limit == Some(0)) {
            return Err(invalid(at(&format!(
                "limits.{field} is 0: leave it unset where it is not known"
            ))));
        }
    }
    Ok(())
}

fn endpoint(endpoint: &str) -> Result<(), &'static str> {
    const WANTED: &str = "is not a base URL: give for example http://10.0.0.7:8000";
    let uri: Uri = endpoint.parse().map_err(|_| WANTED)?;
    let scheme_known = matches!(uri.scheme_str(), Some("http" | "https"));
    if !scheme_known || uri.host().is_none_or(str::is_empty) {
        return Err(WANTED);
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err("has a path or a query: give the base URL only");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use equipoise_proto::v1::{EngineLimits, Model};

    fn valid() -> Instance {
        Instance {
            name: "pool-a/0".to_owned(),
            pool: "pool-a".to_owned(),
            model: Some(Model {
                name: "qwen".to_owned(),
                ..Model::default()
            }),
            endpoint: "http://127.0.0.1:8000".to_owned(),
            ..Instance::default()
        }
    }

    fn refusal(change: impl Fn(&mut Instance)) -> String {
        let mut instance = valid();
        change(&mut instance);
        let request = RegisterRequest {
            node: "n1".to_owned(),
            instances: vec![instance],
            ..RegisterRequest::default()
        };
        let status = registration(request).expect_err("is invalid");
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        status.message().to_owned()
    }

    #[test]
    fn refusals_name_the_field() {
        assert!(refusal(|i| i.name.clear()).contains("name is empty"));
        assert!(refusal(|i| i.name = "A b".to_owned()).contains("[a-z0-9.-_/]"));
        assert!(refusal(|i| i.name = "a".repeat(254)).contains("254"));
        assert!(refusal(|i| i.pool = "é".to_owned()).contains("pool"));
        assert!(refusal(|i| i.model = None).contains("model.name"));
        let set = |i: &mut Instance, quality| {
            i.model = Some(Model {
                quality: Some(quality),
                name: "m".to_owned(),
                ..Model::default()
            });
        };
        assert!(refusal(|i| set(i, 1.5)).contains("model.quality is 1.5"));
        assert!(refusal(|i| set(i, f64::NAN)).contains("model.quality is NaN"));
        let priced = |i: &mut Instance| {
            i.model = Some(Model {
                input_usd_per_mtok: Some(-1.0),
                name: "m".to_owned(),
                ..Model::default()
            });
        };
        assert!(refusal(priced).contains("model.input_usd_per_mtok"));
        for endpoint in [
            "",
            "127.0.0.1:8000",
            "ftp://a:1",
            "http://",
            "http://a:1/v1",
            "http://a:1/?x=1",
        ] {
            assert!(
                refusal(|i| i.endpoint = endpoint.to_owned()).contains("endpoint"),
                "{endpoint}"
            );
        }
        let limits = EngineLimits {
            max_num_seqs: Some(0),
            ..EngineLimits::default()
        };
        assert!(refusal(|i| i.limits = Some(limits)).contains("limits.max_num_seqs"));
    }

    #[test]
    fn a_valid_registration_gets_its_normal_form() {
        let mut instance = valid();
        instance.tier = Some(equipoise_proto::v1::Tier {
            gpu: "H100".to_owned(),
            tensor_parallel: 0,
            measured: String::new(),
            serving: String::new(),
        });
        let twice = vec![instance.clone(), instance.clone()];
        let request = |instances| RegisterRequest {
            node: "n1".to_owned(),
            instances,
            ..RegisterRequest::default()
        };
        let (node, instances) = registration(request(vec![instance])).expect("is valid");
        assert_eq!((node.as_str(), instances[0].node.as_str()), ("n1", "n1"));
        assert_eq!(instances[0].tier.as_ref().expect("kept").tensor_parallel, 1);
        assert!(
            registration(request(twice))
                .expect_err("twice")
                .message()
                .contains("twice")
        );
    }
}
