//! Steps taken together and steps taken one by one: the same results, bit for bit.

use equipoise_types::RandomStream;

use super::*;

/// Anything that a run depends on, drawn from one seed.
struct Scenario {
    fleet: FleetConfig,
    records: Vec<WorkloadRecord>,
    options: SimulationOptions,
}

fn pick<T: Copy>(random: &mut RandomStream, of: &[T]) -> T {
    of[random.below(of.len())]
}

fn pools(random: &mut RandomStream) -> String {
    let mut pools = String::new();
    for index in 0..1 + random.below(2) {
        let model = pick(random, &["fam-3b", "fam-7b"]);
        let count = 1 + random.below(2);
        let seqs = 1 + random.below(12);
        if random.below(5) == 0 {
            let service_ms = pick(random, &[40, 300, 1500]);
            pools += &format!(
                "[[pool]]\nname = \"p{index}\"\nmodel = \"{model}\"\nservice_ms = {service_ms}\ncount = {count}\n\
                 limits = {{ max_num_seqs = {seqs} }}\n"
            );
            continue;
        }
        let gpu = pick(random, &["A30", "H100"]);
        let budget = pick(random, &[8, 64, 512, 2048]);
        let block = pick(random, &[4, 16]);
        // From hardly more than the longest request to plenty.
        let blocks = pick(random, &[1700, 1700, 2500, 6000, 100_000]) / block;
        pools += &format!(
            "[[pool]]\nname = \"p{index}\"\nmodel = \"{model}\"\ngpu = \"{gpu}\"\ncount = {count}\n\
             limits = {{ max_num_seqs = {seqs}, max_num_batched_tokens = {budget}, block_tokens = {block}, \
             num_gpu_blocks = {blocks} }}\n"
        );
    }
    pools
}

fn records(random: &mut RandomStream) -> Vec<WorkloadRecord> {
    let rate_per_s = pick(random, &[0.5, 4.0, 30.0, 300.0, 300.0]);
    let (prompt, output) = (pick(random, &[20.0, 200.0, 700.0]), pick(random, &[5.0, 60.0, 250.0]));
    let mut now_s = 0.0;
    let requests = 10 + random.below(70);
    let record = |_| {
        // Some come at the very same time, and some times are round.
        if random.below(4) > 0 {
            now_s += random.exponential(1.0 / rate_per_s);
        }
        if random.below(6) == 0 {
            now_s = f64::ceil(now_s * 10.0) / 10.0;
        }
        let prompt_tokens = (random.log_normal(prompt, 0.6) as u32).clamp(1, 1200);
        let family = random.below(4) as u64;
        let blocks = (0..u64::from(prompt_tokens / MOONCAKE)).map(|block| 10 * family + block);
        WorkloadRecord {
            arrival: Timestamp::from_secs_f64(now_s),
            prompt_tokens,
            output_tokens: (random.log_normal(output, 0.6) as u32).clamp(1, 400),
            prefix_blocks: (random.below(2) == 0).then(|| blocks.collect()),
            ..WorkloadRecord::default()
        }
    };
    (0..requests).map(record).collect()
}

const MOONCAKE: u32 = equipoise_trace::MOONCAKE_BLOCK_TOKENS;

fn scenario(seed: u64) -> Scenario {
    let mut random = RandomStream::new(seed).derive("identity");
    let mut fleet = parse(&pools(&mut random));
    fleet.scheduler.late_binding = random.below(3) > 0;
    fleet.scheduler.queue_timeout_s = pick(&mut random, &[0.5, 30.0]);
    let records = records(&mut random);
    let slo = SloGoal {
        ttft_s: Some(1.0),
        e2e_s: None,
        confidence: 0.9,
        enforced: random.below(2) == 0,
    };
    let options = SimulationOptions {
        policies: vec![pick(&mut random, &equipoise_policy::all_names()[..9]).to_owned()],
        seed,
        hop_s: pick(&mut random, &[0.0, 1e-3, 0.02, 0.5]),
        telemetry_interval_s: pick(&mut random, &[0.05, 0.2]),
        prefix_cache: random.below(4) > 0,
        mismatch: Mismatch::of(pick(&mut random, &[0.0, 0.0, 0.15])),
        slo: (random.below(3) == 0).then_some(slo),
        feedback_share: pick(&mut random, &[0.0, 0.5]),
        routers: RouterOptions {
            count: pick(&mut random, &[1, 1, 3]),
            ..RouterOptions::default()
        },
        ..SimulationOptions::default()
    };
    Scenario {
        fleet,
        records,
        options,
    }
}

/// What came of a run, and every request's record in the order in which they ended.
fn outcome(scenario: &Scenario, step_by_step: bool) -> (PolicyResult, Vec<String>) {
    let options = SimulationOptions {
        step_by_step,
        ..scenario.options.clone()
    };
    let mut told = Vec::new();
    let mut sink = |record: &RequestRecord<'_>| told.push(format!("{record:?}"));
    let stream = scenario.records.iter().cloned().map(Ok);
    let result = simulate_stream(&scenario.fleet, stream, &options, &mut sink).expect("runs");
    (result, told)
}

/// A quarter of the scenarios; what they have in them.
fn compare(quarter: u64) {
    const EACH: u64 = 250;
    let (mut preemptions, mut cached, mut refused, mut queued, mut joules) = (0, 0, 0, 0, 0);
    for seed in quarter * EACH..(quarter + 1) * EACH {
        let scenario = scenario(seed);
        let (one_by_one, together) = (outcome(&scenario, true), outcome(&scenario, false));
        for (record, expected) in together.1.iter().zip(&one_by_one.1) {
            assert_eq!(record, expected, "scenario {seed}");
        }
        assert_eq!(together, one_by_one, "scenario {seed}");
        let result = together.0;
        assert!(
            result.energy.is_conserved() && result.unfinished == 0,
            "scenario {seed}"
        );
        preemptions += result.preemptions;
        cached += result.cached_prompt_tokens;
        refused += result.refused;
        queued += result.queued;
        joules += result.energy.attributed_mj.0;
    }
    assert!(preemptions > 100, "{preemptions}");
    assert!(cached > 10_000 && joules > 0, "{cached}");
    assert!(refused > 100 && queued > 1000, "{refused} {queued}");
}

#[test]
fn steps_together_are_steps_one_by_one_in_scenarios_0_to_249() {
    compare(0);
}

#[test]
fn steps_together_are_steps_one_by_one_in_scenarios_250_to_499() {
    compare(1);
}

#[test]
fn steps_together_are_steps_one_by_one_in_scenarios_500_to_749() {
    compare(2);
}

#[test]
fn steps_together_are_steps_one_by_one_in_scenarios_750_to_999() {
    compare(3);
}

/// Who looks at loads alone decides from a roster and hears of answers when it has to; a replay looks at every instance and is
/// told everything.
#[test]
fn decisions_by_load_are_those_of_who_looks_at_everything() {
    for seed in 2000..2060 {
        let mut scenario = scenario(seed);
        let policy = ["round-robin", "random", "least-requests", "power-of-two"][seed as usize % 4];
        scenario.options.policies = vec![policy.to_owned()];
        scenario.options.routers.count = 1;
        let mut log = Vec::new();
        let Scenario {
            fleet,
            records,
            options,
        } = &scenario;
        let recorded = simulate_recorded(fleet, records, options, &mut log, "log").expect("runs");
        let replayed = replay(&mut EventLogReader::new(log.as_slice(), "log").expect("a log")).expect("replays");
        assert!(
            replayed.is_identical() && replayed.dispatches > 0,
            "scenario {seed}: {replayed}"
        );
        let (result, _) = outcome(&scenario, false);
        let result = PolicyResult {
            sent_to: recorded.sent_to.clone(),
            ..result
        };
        assert_eq!(result, recorded, "scenario {seed}");
    }
}
