"""InstructIR's language head as a text model, over a small sentence encoder."""

from __future__ import annotations

import pytest

from irtool.errors import UnavailableError, UsageError
from irtool.language import Intent, load


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory):
    """A tiny BERT of the published size with random weights, and its tokeniser: what is tested is the way."""
    transformers = pytest.importorskip("transformers")
    import torch

    folder = tmp_path_factory.mktemp("encoder")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "remove", "the", "rain", "noise"]
    (folder / "vocab.txt").write_text("\n".join(pieces))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(pieces), hidden_size=384, num_hidden_layers=1, num_attention_heads=4, intermediate_size=32
    )
    transformers.BertModel(config).save_pretrained(folder, safe_serialization=True)
    return folder


def test_padding_does_not_change_an_embedding(encoder_folder):
    import torch

    from irtool.models.instructir_text import SentenceEncoder

    encoder = SentenceEncoder(str(encoder_folder))
    alone = encoder(["remove the rain"])
    assert alone.shape == (1, encoder.size) == (1, 384)
    torch.testing.assert_close(alone.norm(dim=1), torch.ones(1))
    padded = encoder(["remove the rain", "remove the noise the rain the noise"])[:1]
    torch.testing.assert_close(alone, padded, rtol=1e-4, atol=1e-5)  # padding does not count
    with pytest.raises(UnavailableError, match="encoder"):
        SentenceEncoder(str(encoder_folder / "nothing"))


def published_head(path, seed=0, inputs=384):
    """A file laid out as lm_instructir-7d.pt is, with random weights."""
    import torch

    from irtool.models.instructir import LanguageHead

    torch.manual_seed(seed)
    torch.save(LanguageHead(inputs).state_dict(), path)
    return path


def test_the_instructir_head_over_a_local_encoder(encoder_folder, tmp_path):
    from irtool.models.instructir import CLASSES

    head = published_head(tmp_path / "lm.pt")
    model = load(f"local:{head}@{encoder_folder}")
    embedding, logits = model.steer(["remove the rain"])
    assert embedding.shape == (1, 256) and logits.shape == (1, len(CLASSES))
    kind = CLASSES[int(logits.argmax())]
    intent = model.parse("remove the rain")
    assert intent.spans[0].kind == kind and (kind in intent.tasks or kind in intent.outside or intent.auto == 1.0)
    assert model.parse(" ") == Intent(text=" ")
    with pytest.raises(UsageError, match="no custom tasks"):
        model.parse("remove the moire", ["moire"])
    small = published_head(tmp_path / "small.pt", inputs=100)
    with pytest.raises(UnavailableError, match="takes 100 numbers") as caught:
        load(f"local:{small}@{encoder_folder}")
    assert "trained with" in caught.value.hint


def test_the_published_instructir_head_loads(shared, encoder_folder):
    """The real head takes what the real encoder gives; here only that its file is read as it was published."""
    import torch
    from safetensors.torch import load_file

    from irtool.models.instructir import LanguageHead
    from irtool.models.instructir_text import InstructIRWords, SentenceEncoder

    tensors = load_file(shared / "goldens" / "instructir_lmhead_real.safetensors")
    head = LanguageHead()
    head.load_state_dict({k.removeprefix("weights/"): v for k, v in tensors.items() if k.startswith("weights/")})
    embedding, _ = InstructIRWords(head.eval(), SentenceEncoder(str(encoder_folder))).steer(["remove the rain"])
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(1))


@pytest.mark.parametrize("reference", ["nothing", "instructir:", "encoder:x", ""])
def test_an_unknown_text_model_reference_is_refused(reference):
    with pytest.raises(UsageError, match="no text model") as caught:
        load(reference)
    assert "instructir:ENCODER" in caught.value.hint


def test_a_restorer_is_no_text_model(models_dir):
    with pytest.raises(UnavailableError, match="holds no text model"):
        load(f"local:{models_dir / 'restorer.safetensors'}")
