"""The words of the demo model: English and Chinese names of its objects and colours, and the filler around them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Noun:
    """Names of one kind of object.

    `english` holds (singular, plural) pairs; `measures` the Chinese measure words, one character each; `color` is the
    colour that the object has when a prompt names none.
    """

    english: tuple[tuple[str, str], ...]
    chinese: tuple[str, ...]
    measures: str
    color: str


def _plain(*singulars: str) -> tuple[tuple[str, str], ...]:
    return tuple((word, word + "s") for word in singulars)


NOUNS: dict[str, Noun] = {
    "mug": Noun(_plain("mug", "cup", "coffee mug"), ("杯子", "马克杯", "水杯", "咖啡杯"), "个只", "red"),
    "bottle": Noun(_plain("bottle", "water bottle"), ("瓶子", "水瓶"), "个只", "blue"),
    "tshirt": Noun(_plain("t-shirt", "shirt", "tee"), ("T恤", "短袖", "上衣"), "件", "blue"),
    "chair": Noun(_plain("chair"), ("椅子", "座椅"), "把张", "orange"),
    "lamp": Noun(_plain("lamp", "table lamp", "desk lamp"), ("台灯", "灯"), "盏个", "yellow"),
    "ball": Noun(_plain("ball"), ("球", "皮球"), "个只", "red"),
    "box": Noun((("box", "boxes"), ("cube", "cubes"), ("gift box", "gift boxes")), ("盒子", "箱子", "礼盒"), "个只", "orange"),
    "tree": Noun(_plain("tree"), ("树", "松树"), "棵", "green"),
    "star": Noun(_plain("star"), ("星星", "五角星"), "颗个", "yellow"),
    "heart": Noun(_plain("heart"), ("心", "爱心"), "颗个", "red"),
    "shoe": Noun(_plain("shoe", "sneaker"), ("鞋子", "运动鞋", "鞋"), "只双", "blue"),
    "bag": Noun(_plain("bag", "handbag"), ("包", "手提包", "包包"), "个只", "pink"),
    "hat": Noun(_plain("hat", "cap"), ("帽子", "礼帽"), "顶个", "black"),
    "book": Noun(_plain("book", "open book"), ("书", "书本", "图书"), "本", "purple"),
    "plate": Noun((("plate", "plates"), ("dish", "dishes")), ("盘子", "碟子"), "个只", "blue"),
    "candle": Noun(_plain("candle"), ("蜡烛", "香薰蜡烛"), "支根", "red"),
    "clock": Noun(_plain("clock", "alarm clock"), ("闹钟", "时钟", "钟"), "个只", "yellow"),
    "umbrella": Noun(_plain("umbrella", "parasol"), ("雨伞", "伞"), "把", "purple"),
}

COLOR_WORDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # colour: (English words, Chinese words)
    "red": (("red",), ("红色", "红")),
    "orange": (("orange",), ("橙色", "橘色", "橙")),
    "yellow": (("yellow",), ("黄色", "黄")),
    "green": (("green",), ("绿色", "绿")),
    "blue": (("blue",), ("蓝色", "蓝")),
    "purple": (("purple", "violet"), ("紫色", "紫")),
    "pink": (("pink",), ("粉色", "粉红色")),
    "gray": (("gray", "grey"), ("灰色", "灰")),
    "black": (("black",), ("黑色", "黑")),
    "white": (("white",), ("白色", "白")),
}

ENGLISH_PHRASES = (
    "studio lighting", "high quality", "minimalist", "product photo", "soft shadow", "4k", "sharp focus", "clean",
    "e-commerce listing", "professional photography", "best quality", "centered composition", "front view",
    "simple flat illustration", "commercial shot", "isolated", "catalog photo", "no text", "masterpiece", "vector style",
    "highly detailed", "realistic", "studio product photo", "soft light", "main image", "plain", "web shop", "8k",
)  # fmt: skip
CHINESE_PHRASES = (
    "高清", "产品摄影", "电商主图", "柔和的光线", "极简风格", "细节丰富", "棚拍", "商业摄影", "干净", "高质量", "扁平插画",
    "真实感", "居中构图", "无文字", "商品图", "柔光", "8k", "大师作品", "写实", "促销海报", "产品图", "正面", "摄影棚灯光",
)  # fmt: skip
ENGLISH_ADJECTIVES = (
    "beautiful", "cute", "modern", "ceramic", "shiny", "wooden", "simple", "new", "elegant", "vintage", "cozy",
    "plastic", "stylish", "nice", "leather", "cotton", "classic", "small", "large",
)  # fmt: skip
CHINESE_ADJECTIVES = (
    "漂亮的", "可爱的", "现代的", "陶瓷", "简约的", "精致的", "新款", "复古", "时尚的", "木质", "皮质", "经典", "小", "大",
)  # fmt: skip
ENGLISH_NOISE = (
    "sale", "brand", "summer", "winter", "for", "you", "best", "price", "free", "shipping", "the", "with", "and",
    "in", "of", "home", "office", "kitchen", "gift", "kids", "new", "style", "premium", "daily", "use", "fresh",
    "cheerful", "featuring", "standing", "bright", "airy", "our", "shop", "award", "winning", "image",
)  # fmt: skip
CHINESE_NOISE = "夏季新品优惠包邮限时礼物家居办公送给你日常使用品质生活推荐热卖正品的是在有和里面请帮我一张"
