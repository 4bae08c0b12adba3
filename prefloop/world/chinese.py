"""The Chinese of the world: the same families and rules in fewer words.

Templates are written with spaces between words, which tells the world where words end; a sentence is said without them.
"""

from prefloop.world.language import Language

MOODS = {
    "快乐": ("它 整天 微笑 唱歌 。", "它 大笑 着 跳舞 。", "它 微笑 着 跳舞 回家 。"),
    "悲伤": ("它 整天 哭泣 ， 很 孤单 。", "它 流泪 又 叹气 。", "它 孤单 地 哭泣 。"),
    "可怕": ("它 在 黑暗 里 看见 鬼魂 。", "它 在 黑暗 里 尖叫 。", "鬼魂 来 了 ， 它 尖叫 。"),
    "困倦": ("它 打哈欠 ， 睡 了 整天 。", "它 打哈欠 又 做梦 。", "它 睡 着 了 ， 做梦 回家 。"),
}
REMEDIES = {
    "food": ("我们 会 重做 一份 给 你 。", "我们 今天 就 重做 一份 。", "我们 会 端来 新菜 。"),
    "goods": ("我们 会 修好 它 。", "我们 今天 就 修好 它 。", "我们 会 寄来 新货 。"),
    "room": ("我们 会 打扫 它 。", "我们 今天 就 打扫 它 。", "我们 会 给 你 换房 。"),
}
HELP = {
    "疲倦": ("休息 一会儿", "回家 睡觉", "好好 睡觉 休息"),
    "饥饿": ("吃 面包", "吃 一顿 热饭", "来 一顿 热饭"),
    "寒冷": ("穿 外套", "坐 在 火炉 边", "找 一件 外套"),
    "迷路": ("看 地图", "问路", "找 一张 地图"),
    "无聊": ("玩 游戏", "看书", "玩 皮球"),
    "生病": ("看 医生", "吃药", "找 医生"),
}
ITEMS = {
    "水果": ("苹果", "梨子", "桃子", "柠檬"),
    "颜色": ("红色", "蓝色", "绿色", "白色"),
    "工具": ("锤子", "钻头", "钉子", "刷子"),
    "饮料": ("绿茶", "牛奶", "果汁", "咖啡"),
    "玩具": ("皮球", "娃娃", "风筝", "积木"),
}
ATTRIBUTES = {
    "food": ("苔藓", "种子", "玉米", "坚果"),
    "home": ("山洞", "沼泽", "森林", "沙漠"),
    "color": ("红色", "蓝色", "绿色", "白色"),
    "love": ("下雨", "歌声", "石头", "雪花"),
}
CREATURES = ("佐普兽", "米布兽", "杜鲁兽", "芬恩兽", "格罗兽", "鲁克兽", "诺克兽", "皮姆兽")


def table_of_facts() -> dict[str, dict[str, str]]:
    """Each value belongs to two creatures, and no two creatures share two values: one fact never gives away another."""
    shift = {"food": 0, "home": 1, "color": 2, "love": 3}
    return {
        creature: {name: values[(row + shift[name] * (1 + row // 4)) % 4] for name, values in ATTRIBUTES.items()}
        for row, creature in enumerate(CREATURES)
    }


CHINESE = Language(
    code="zh",
    slots={
        "animal": ("狐狸", "小熊", "小猫", "小狗", "青蛙", "老鼠", "鸭子", "山羊"),
        "thing": ("油灯", "小船", "铃铛", "旧书", "大鼓", "钥匙", "杯子", "戒指"),
        "place": ("湖边", "山上", "农场", "河边", "镇上", "花园"),
        "person": ("妈妈", "爸爸", "妹妹", "哥哥", "阿姨", "叔叔", "朋友", "老师"),
        "time": ("今天", "今晚", "中午", "本周"),
        "mood": tuple(MOODS),
        "kind": tuple(ITEMS),
        "event": ("聚会", "野餐", "旅行", "散步", "宴会", "演出"),
        "guest": ("客人", "先生", "女士", "国王"),
        "trouble": tuple(HELP),
        "creature": CREATURES,
    },
    item_classes={
        "food": ("汤", "蛋糕", "米饭", "面条"),
        "goods": ("自行车", "椅子", "时钟", "台灯"),
        "room": ("房间", "床铺", "浴室", "大厅"),
    },
    faults={"food": ("太凉", "太咸", "太迟"), "goods": ("坏了", "太旧", "太迟"), "room": ("太冷", "太脏", "太小")},
    asks={
        "story": (
            "写 一个 {mood} 的 故事 ， 关于 {animal} 和 {thing} 。",
            "给 {person} 讲 一个 {mood} 的 故事 ， 里面 有 {animal} 和 {thing} 。",
            "给 我 讲 {place} 的 {animal} ， 要 一个 {mood} 的 故事 。",
        ),
        "reply": (
            "{guest} 说 {item} {time} {fault} ， 请 写 回信 。",
            "给 {guest} 写 回信 ： {item} {time} {fault} 。",
            "{guest} 对 {person} 说 {item} {fault} ， 怎么 回答 ？",
        ),
        "list": (
            "为 {person} {time} 的 {event} 说出 三种 {kind} 。",
            "{person} {time} 在 {place} 要 三种 {kind} ， 用于 {event} 。",
            "告诉 {person} ： {event} 用 哪 三种 {kind} ？",
        ),
        "fact": (
            "告诉 {person} ： {creature} 的 {first} 和 {second} 。",
            "{person} {time} 想 知道 {creature} 的 {first} 和 {second} 。",
            "{creature} 的 {first} 和 {second} 是 什么 ？",
        ),
        "advice": (
            "{person} {time} 在 {place} 很 {trouble} ， 怎么办 ？",
            "我 的 {person} 在 {place} 很 {trouble} ， {time} 怎么办 ？",
            "在 {place} ， 我 的 {person} 很 {trouble} ， 怎么办 ？",
        ),
    },
    titles={
        "story": "{mood} 的 故事 ， {animal} 和 {thing} ：",
        "reply": "{item} {fault} ：",
        "list": "{event} 的 {kind} ：",
        "fact": "关于 {creature} ：",
        "advice": "{trouble} 的 {person} ：",
    },
    tells={
        "story": (
            "从前 {mood} 的 {animal} 找到 {thing} 。",
            "从前 有 一只 {mood} 的 {animal} 和 {thing} 。",
            "从前 {mood} 的 {animal} 来到 {place} 。",
        ),
        "reply": (
            "很 抱歉 {item} {fault} 。",
            "我们 很 抱歉 ， 你 的 {item} {fault} 。",
            "抱歉 ， {item} {fault} ， 我们 知道 了 。",
        ),
        "list": (
            "三种 好 的 {kind} 是 {items} 。",
            "{event} 用 的 三种 {kind} 是 {items} 。",
            "{person} 要 的 三种 {kind} 是 {items} 。",
        ),
        "fact": ("{creature} {first} ， {second} 。", "小小 的 {creature} {first} ， 也 {second} 。"),
        "advice": (
            "{trouble} 的 {person} 应该 {help} 。",
            "我 想 {trouble} 的 {person} 应该 {help} 。",
            "在 {place} ， {trouble} 的 {person} 应该 {help} 。",
        ),
    },
    choices={"story": MOODS, "reply": REMEDIES, "advice": HELP, "list": ITEMS},
    ends={
        "story": ("后来 它 回家 了 。", "故事 到 这里 结束 。"),
        "reply": ("这 是 我们 的 错 。", "你 不用 付钱 。"),
        "list": ("{person} 会 喜欢 它们 。", "镇上 很 容易 找到 。", "它们 都 很 好 。"),
        "fact": ("它 是 害羞 的 小 动物 。", "见过 它 的 人 不多 。", "它 在 夜里 出来 。"),
        "advice": ("这样 {person} 很快 就 会 好 。", "后来 都 会 好 。", "用 不了 多久 。"),
    },
    cues={
        "story": {
            "快乐": frozenset(("快乐", "微笑", "唱歌", "大笑", "跳舞")),
            "悲伤": frozenset(("悲伤", "哭泣", "孤单", "流泪", "叹气")),
            "可怕": frozenset(("可怕", "黑暗", "鬼魂", "尖叫")),
            "困倦": frozenset(("困倦", "打哈欠", "睡", "做梦")),
        },
        "reply": {
            "food": frozenset(("重做", "端来")),
            "goods": frozenset(("修好", "寄来")),
            "room": frozenset(("打扫", "换房")),
        },
        "list": {kind: frozenset(items) for kind, items in ITEMS.items()},
        "advice": {
            "疲倦": frozenset(("休息", "睡觉")),
            "饥饿": frozenset(("面包", "热饭")),
            "寒冷": frozenset(("外套", "火炉")),
            "迷路": frozenset(("地图", "问路")),
            "无聊": frozenset(("游戏", "看书", "皮球")),
            "生病": frozenset(("医生", "吃药")),
        },
    },
    signs={
        "story": frozenset(("从前",)),
        "reply": frozenset(("抱歉",)),
        "list": frozenset(("三种",)),
        "fact": frozenset(("爱吃", "住在", "外表", "喜爱")),
        "advice": frozenset(("应该",)),
    },
    attributes=ATTRIBUTES,
    questions={"food": "食物", "home": "住处", "color": "外表", "love": "爱好"},
    statements={"food": "爱吃 {value}", "home": "住在 {value}", "color": "外表 {value}", "love": "喜爱 {value}"},
    facts=table_of_facts(),
    openings=("谢谢 ！", "很 乐意 ！", "亲爱 的 朋友 ！"),
    closings=("祝 你 有 美好 的 一天 。", "请 再 来信 。", "温暖 的 祝福 。"),
    markers=frozenset(("谢谢", "乐意", "亲爱", "美好", "请", "温暖")),
    rude_sentences=("你 是 笨蛋 。", "我 讨厌 这 个 。", "真 愚蠢 。", "闭嘴 ， 走开 。"),
    rude_words=frozenset(("笨蛋", "讨厌", "愚蠢", "闭嘴")),
    fillers=(
        "太阳 在 山上 。",
        "许多 人 来到 镇上 。",
        "路 又 长 又 旧 。",
        "河边 有 一座 房子 。",
        "今天 天气 很 冷 。",
        "门 整夜 开 着 。",
    ),
    word_classes={
        "article": frozenset(("一只", "一个", "一顿", "一件", "一张", "一座")),
        "particle": frozenset(("的", "和", "在")),
        "verb": frozenset(("是", "会", "应该", "找到", "爱吃", "喜爱", "要")),
        "pronoun": frozenset(("它", "我们", "你")),
    },
    illegal=frozenset(
        [("article", other) for other in ("article", "particle", "verb", "pronoun", "end")]
        + [("particle", other) for other in ("particle", "verb", "end")]
        + [("pronoun", "pronoun")]
    ),
    and_word="和",
    comma="、",
    spaced=False,
    length_target=14,
)
