//! Against vectors of an independent forward pass in double precision (numpy over the same weights, with a tokenizer written
//! from BERT's description). Needs the weights of all-MiniLM-L6-v2: EQUIPOISE_ENCODER names their folder.

use std::path::PathBuf;

use equipoise_encoder::SentenceEncoder;
use equipoise_predict::Embedder as _;

/// A sentence, the first six numbers of its vector, and the last.
const GOLDEN: [(&str, [f32; 6], f32); 3] = [
    (
        "What is the capital of France?",
        [0.082_048, 0.036_055, -0.003_893, -0.004_881, 0.025_651, -0.057_143],
        -0.011_128,
    ),
    (
        "Find all real $x$ with $\\frac{x^2}{3} = 12$; naïve café, 東京!",
        [0.068_296, 0.031_549, -0.041_692, -0.009_341, -0.078_731, -0.017_88],
        0.037_164,
    ),
    // Forty times: more than is read.
    (
        "Natalia sold clips to 48 of her friends. ",
        [-0.014_225, -0.026_901, -0.016_576, -0.001_583, -0.094_711, 0.072_569],
        0.014_614,
    ),
];

#[test]
fn vectors_are_those_of_the_reference() {
    let Some(folder) = std::env::var_os("EQUIPOISE_ENCODER").map(PathBuf::from) else {
        eprintln!("SKIPPED: EQUIPOISE_ENCODER does not name a folder with the weights of all-MiniLM-L6-v2");
        return;
    };
    let read = |name: &str| std::fs::read(folder.join(name)).expect("can be read");
    let vocabulary = String::from_utf8(read("vocab.txt")).expect("is text");
    let encoder = SentenceEncoder::new(&read("config.json"), &read("model.safetensors"), &vocabulary).expect("fits");
    let mut vectors = Vec::new();
    for (index, (text, first, last)) in GOLDEN.iter().enumerate() {
        let text = if index == 2 {
            text.repeat(40)
        } else {
            (*text).to_owned()
        };
        let vector = encoder.embed(&text);
        assert_eq!(vector.len(), 384);
        let off = vector.iter().zip(first).map(|(found, wanted)| (found - wanted).abs());
        let off = off.chain([(vector[383] - last).abs()]).fold(0.0, f32::max);
        assert!(off < 1e-4, "{text:.40}: off by {off}");
        vectors.push(vector);
    }
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    assert!((product(&vectors[0], &vectors[0]) - 1.0).abs() < 1e-5);
    let asked_otherwise = encoder.embed("What is France's capital city?");
    assert!(
        (product(&vectors[0], &asked_otherwise) - 0.950_95).abs() < 1e-4,
        "the same question in other words"
    );
    let cut = read("model.safetensors");
    let config = read("config.json");
    let error = SentenceEncoder::new(&config, &cut[..cut.len() - 1], &vocabulary).expect_err("is cut off");
    assert!(error.to_string().contains("cut off"), "{error}");
}
