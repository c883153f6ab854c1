"""bench/train_vs_pytorch with peers that are played, and, where CARAVAN_PYTHON has it, with the real one.

    python3 train_vs_pytorch_test.py CARAVAN_PROGRAM

The played peer is a program in the place of the virtual environment's Python: it says what a peer would print, or fails
as one would.
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = Path(sys.argv[1]).resolve()

PLAYED = """#!{python}
import json, sys
answer = json.loads({answer!r})["compile" if "--compile" in sys.argv else "eager"]
if isinstance(answer, str):
    print("Traceback (most recent call last):\\n  somewhere\\n" + answer + "\\n\\nSet MORE=1", file=sys.stderr)
    sys.exit(1)
print("a warning")
print(json.dumps(answer))
"""


class TrainVsPytorch(unittest.TestCase):
    def setUp(self):
        self.scratch = tempfile.TemporaryDirectory()
        self.folder = Path(self.scratch.name)

    def tearDown(self):
        self.scratch.cleanup()

    def run_bench(self, *words, environment=None):
        """Exit status, what was printed, and the JSON file."""
        command = [sys.executable, ROOT / "bench" / "train_vs_pytorch", "--model", "tiny", "--rounds", "1"]
        command += ["--steps", "2", "--caravan", PROGRAM, "--work", self.folder / "work"]
        command += ["--json", self.folder / "figures.json", "--dtype", "f32", *words]
        ran = subprocess.run(
            [str(word) for word in command],
            capture_output=True,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        figures = self.folder / "figures.json"
        return ran.returncode, ran.stdout, json.loads(figures.read_text()) if figures.exists() else ran.stderr

    def play(self, eager, compiled):
        python = self.folder / "played" / "bin" / "python"
        python.parent.mkdir(parents=True, exist_ok=True)
        answer = json.dumps({"eager": eager, "compile": compiled})
        python.write_text(PLAYED.format(python=sys.executable, answer=answer))
        python.chmod(0o755)
        return ["--venv", self.folder / "played"]

    def caravan_alone(self):
        status, _, figures = self.run_bench("--peers", "")
        self.assertEqual(status, 0, figures)
        return figures

    def answer_like(self, figures, seconds, shift=0.0):
        run = figures["runs"]["caravan"][0]
        return {
            "torch": "9.9", "transformers": "8.8", "threads": 1, "instructions": "NONE", "attention": "sdpa",
            "losses": [run["losses"][0], run["losses"][1] + shift, *run["losses"][2:]],
            "grad_norms": run["grad_norms"],
            "seconds": [1e6] * 3 + [seconds] * 2,
        }

    def test_caravan_alone_learns_and_uses_memory(self):
        figures = self.caravan_alone()
        losses = figures["runs"]["caravan"][0]["losses"]
        self.assertEqual(len(losses), 5)
        self.assertLess(losses[-1], losses[0] - 0.05, "the steps change the loss by more than the tolerance")
        side = figures["sides"]["caravan"]
        self.assertGreater(side["peak_bytes"], 1 << 20)
        self.assertGreater(side["product_peak_share"], 0.0)

    def test_the_faster_peer_counts_and_warm_up_does_not(self):
        alone = self.caravan_alone()
        venv = self.play(self.answer_like(alone, 0.5), self.answer_like(alone, 0.25))
        status, out, figures = self.run_bench(*venv)
        self.assertEqual(status, 0, out)
        tokens = 2 * 64
        self.assertAlmostEqual(figures["sides"]["eager"]["tokens_per_second"], tokens / 0.5)
        self.assertAlmostEqual(figures["sides"]["compile"]["tokens_per_second"], tokens / 0.25)
        self.assertEqual(figures["better_peer"], "compile")
        ours = figures["sides"]["caravan"]["tokens_per_second"]
        self.assertAlmostEqual(figures["speed_ratio"], ours / (tokens / 0.25))
        self.assertIn("torch 9.9", out)
        self.assertIn("| Caravan / PyTorch torch.compile |", out)

    def test_a_peer_that_fails_is_told_with_its_reason_and_the_other_counts(self):
        alone = self.caravan_alone()
        venv = self.play(self.answer_like(alone, 0.5), "torch._inductor.exc.InductorError: no C++ compiler")
        status, out, figures = self.run_bench(*venv)
        self.assertEqual(status, 0, out)
        self.assertEqual(figures["failures"], {"compile": "torch._inductor.exc.InductorError: no C++ compiler"})
        self.assertEqual(figures["better_peer"], "eager")
        self.assertIn("| PyTorch torch.compile | failed: torch._inductor.exc.InductorError: no C++ compiler |", out)

    def test_it_fails_when_all_peers_do(self):
        status, out, figures = self.run_bench(*self.play("ImportError: a", "ImportError: b"))
        self.assertEqual(status, 1, out)
        self.assertEqual(figures["failures"], {"eager": "ImportError: a", "compile": "ImportError: b"})
        self.assertIn("caravan", figures["sides"])

    def test_it_fails_when_losses_disagree_or_are_none(self):
        alone = self.caravan_alone()
        for shift in (0.011, float("nan")):
            venv = self.play(self.answer_like(alone, 0.5), self.answer_like(alone, 0.5, shift))
            status, out, figures = self.run_bench(*venv)
            self.assertEqual(status, 1, out)
            self.assertIn("DISAGREE", out)
            self.assertFalse(figures["agree"])
        venv = self.play(self.answer_like(alone, 0.5), self.answer_like(alone, 0.5, 0.009))
        self.assertEqual(self.run_bench(*venv)[0], 0)

    def test_both_sides_get_the_same_number_of_threads(self):
        venv = self.play("ImportError: x", "ImportError: x")
        environment = {"OMP_NUM_THREADS": "7", "MKL_DYNAMIC": "TRUE", "OMP_WAIT_POLICY": "passive"}
        _, out, figures = self.run_bench(*venv, "--threads", "1", environment=environment)
        self.assertEqual(figures["machine"]["threads"], 1)
        self.assertIn("OMP_NUM_THREADS=1 for all", figures["environment"])
        self.assertIn("OMP_NUM_THREADS=7 removed", figures["environment"])
        self.assertIn("MKL_DYNAMIC=TRUE removed", figures["environment"])
        self.assertIn("OMP_WAIT_POLICY=passive", figures["environment"])
        self.assertIn("--threads 1", figures["commands"]["eager"])
        self.assertIn("--training.threads 1", figures["commands"]["caravan"])

    def test_mistakes_are_told(self):
        for words in (["--venv", "nowhere"], ["--rounds", "0"], ["--peers", "jax"], ["--seq-len", "1"]):
            status, _, said = self.run_bench(*words)
            self.assertNotEqual(status, 0)
            self.assertIn(words[0], said)
            self.assertNotIn("Traceback", said)

    def test_the_quickstart_is_known(self):
        status, _, figures = self.run_bench("--model", "quickstart", "--peers", "", "--rows", "1", "--steps", "1")
        self.assertEqual(status, 0, figures)
        self.assertEqual(figures["sizes"]["vocab"], 2048)
        self.assertEqual(figures["sizes"]["seq_len"], 256)

    def test_transformers_trains_the_same_model(self):
        python = Path(os.environ.get("CARAVAN_PYTHON", "python3"))
        has_peers = subprocess.run([str(python), "-c", "import torch, transformers"], capture_output=True)
        if has_peers.returncode != 0 or python.parent.name != "bin":
            self.skipTest("CARAVAN_PYTHON names no virtual environment with torch and transformers")
        for dtype in ("f32", "bf16"):
            words = ["--venv", python.parent.parent, "--peers", "eager", "--dtype", dtype]
            status, out, figures = self.run_bench(*words)
            self.assertEqual(status, 0, out)
            # In f32 the two differ by rounding alone: 1e-4 is what ten steps of the golden models are held to.
            self.assertLess(figures["loss_differences"]["eager"], 1e-4 if dtype == "f32" else 1e-2)


if __name__ == "__main__":
    if sys.version_info < (3, 11):
        print("SKIPPED: bench/train_vs_pytorch needs Python 3.11")
        sys.exit(0)
    unittest.main(argv=sys.argv[:1])
