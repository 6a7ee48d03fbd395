import operators  # noqa: F401  before torchvision
import timm


def train():
    return timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=10).eval()
