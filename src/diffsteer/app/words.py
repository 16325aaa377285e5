"""What the page says, in English and Chinese. Names of methods, files and flags stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

LANGUAGES = ("en", "zh")
Say = Callable[..., str]


class Said(Exception):
    """Something that a person should hear, by its key in the table below: it is told in their language."""

    def __init__(self, key: str, **values: Any) -> None:
        super().__init__(key)
        self.key, self.values_of_words = key, values

    def __str__(self) -> str:
        return self.told(say("en"))

    def told(self, words: Say) -> str:
        values = {name: words(value) if name == "what" else value for name, value in self.values_of_words.items()}  # `what` is a key itself
        return words(self.key, **values)


def say(language: str) -> Say:
    """The function that says a key's words in a language: `say("zh")("draw.button")`. KeyError for a key that is not there."""
    column = LANGUAGES.index(language)

    def words(key: str, **values: Any) -> str:
        return WORDS[key][column].format(**values)

    return words


# Key: (English, Chinese).
WORDS: dict[str, tuple[str, str]] = {
    # the page
    "page.model": (
        "{model} · {width}×{height} pixels · {kind} · drawn on {device}",
        "{model} · {width}×{height} 像素 · {kind} · 在 {device} 上生成",
    ),
    "page.grey": ("grey", "灰度"),
    "page.colour": ("colour", "彩色"),
    "page.labels": ("{count} labels", "{count} 个类别"),
    "page.no_labels": ("no labels", "无类别"),
    "page.other": ("中文", "English"),
    "page.keys": ("Ctrl+Enter draws, Esc stops.", "Ctrl+Enter 生成，Esc 停止。"),
    # drawing
    "draw.tab": ("Draw", "生成"),
    "draw.button": ("Draw", "生成"),
    "draw.stop": ("Stop", "停止"),
    "draw.pictures": ("Pictures", "图片"),
    "draw.noisy": ("x_t: the noisy picture", "x_t：含噪图片"),
    "draw.clean": ("x0: what the model takes it for", "x0：模型的预测"),
    "draw.labels": ("What to draw (none chosen: all)", "生成哪些类别（不选即全部）"),
    "draw.each": ("Pictures of each", "每类张数"),
    "draw.count": ("Pictures", "张数"),
    "draw.seed": ("First seed", "起始随机种子"),
    "draw.dice": ("Another seed", "换一个种子"),
    "draw.more": ("More", "更多设置"),
    "draw.solver": ("Solver", "采样器"),
    "draw.own": ("model's own ({name})", "模型自带（{name}）"),
    "draw.steps": ("Steps", "采样步数"),
    "draw.guidance": ("Label guidance (1 is off)", "类别引导强度（1 为关闭）"),
    "draw.recipe": ("Load settings from a picture (PNG drawn by diffsteer)", "从图片载入设置（由 diffsteer 生成的 PNG）"),
    "draw.examples": ("Try", "试一试"),
    "draw.same": ("The same without this page", "不用本页面，同样的结果"),
    "draw.command": ("Command line", "命令行"),
    "draw.python": ("Python", "Python"),
    # results
    "result.png": ("PNG (grid, with its recipe)", "PNG（网格，含配方）"),
    "result.gif": ("GIF (film)", "GIF（过程动画）"),
    "result.npz": ("npz (arrays)", "npz（数组）"),
    "result.caption": ("{label} · seed {seed}", "{label} · 种子 {seed}"),
    "result.caption_unlabelled": ("seed {seed}", "种子 {seed}"),
    "result.click": ("Click a picture to keep its seed or use it.", "点击图片，可保留其种子或继续使用。"),
    "result.selected": ("Chosen: {caption}", "已选：{caption}"),
    "result.loss": ("loss {first} → {last}", "损失 {first} → {last}"),
    "result.keep": ("Keep this seed", "保留此种子"),
    "result.use": ("Use as the picture", "用作参考图片"),
    "result.one": ("This picture (PNG)", "下载此图片（PNG）"),
    # steering
    "steer.by": ("Steer by", "引导方式"),
    "steer.color": ("Colour", "颜色"),
    "steer.brightness": ("Brightness", "亮度"),
    "steer.symmetry": ("Symmetry", "对称"),
    "steer.clip": ("Sentence", "句子"),
    "steer.reference": ("Like a picture", "参考图片"),
    "steer.mask": ("Keep a part (mask)", "保留局部（蒙版）"),
    "steer.own": ("Own loss: {name}", "自定义损失：{name}"),
    "steer.strength": ("Strength", "强度"),
    "steer.the_color": ("Colour of lit pixels", "亮部像素的颜色"),
    "steer.the_brightness": ("Mean brightness, 0 to 1", "平均亮度，0 到 1"),
    "steer.the_mirror": ("Mirror", "镜像"),
    "steer.left_right": ("left like right", "左右对称"),
    "steer.up_down": ("up like down", "上下对称"),
    "steer.the_sentence": ("What it should look like, in English", "希望的样子（英文句子）"),
    "steer.upload": ("Picture (PNG, JPEG or WebP)", "图片（PNG、JPEG 或 WebP）"),
    "steer.seen": ("As the model sees it", "模型看到的样子"),
    "steer.by_what": ("What should be like it", "相似之处"),
    "steer.low": ("layout and colours", "构图与颜色"),
    "steer.pixels": ("every pixel", "每个像素"),
    "steer.paint": (
        "Paint with finger or mouse what is to be drawn anew; the rest is kept. Shift rubs out.",
        "用手指或鼠标涂抹要重新生成的部分，其余保留。按住 Shift 可擦除。",
    ),
    "steer.preset": ("Or take a form", "或选择形状"),
    "steer.preset_none": ("nothing", "清空"),
    "steer.preset_left": ("left half", "左半"),
    "steer.preset_right": ("right half", "右半"),
    "steer.preset_top": ("upper half", "上半"),
    "steer.preset_bottom": ("lower half", "下半"),
    "steer.preset_centre": ("centre", "中央"),
    "steer.mask_file": ("mask.png, for the command line", "mask.png（命令行用）"),
    "steer.grey_model": ("This model draws in grey: it cannot be steered by colour.", "此模型生成灰度图，不能用颜色引导。"),
    "steer.no_clip": (
        "Sentences need a CLIP: diffsteer app MODEL --clip FOLDER.",
        "句子引导需要 CLIP：diffsteer app MODEL --clip FOLDER。",
    ),
    # the sheet
    "sweep.fold": ("Compare: one setting in several values, on one sheet", "对比：同一设置取多个值，拼成一张图"),
    "sweep.key": ("Setting", "设置"),
    "sweep.values": ("Values, with commas between", "取值，用逗号分隔"),
    "sweep.button": ("Draw the sheet", "生成对比图"),
    "sweep.strength": ("strength of all steers", "所有引导的强度"),
    "sweep.guidance-scale": ("label guidance", "类别引导强度"),
    "sweep.steps": ("steps", "采样步数"),
    "sweep.solver": ("solver", "采样器"),
    "sweep.sheet": ("Sheet", "对比图"),
    # examples
    "example.all": ("One of each", "每类一张"),
    "example.four": ("Four of “{label}”", "“{label}”四张"),
    "example.green": ("In green", "绿色"),
    "example.symmetric": ("Symmetric", "对称"),
    "example.guided": ("Clearer by label guidance", "类别引导，更清晰"),
    "example.some": ("{count} pictures", "{count} 张图片"),
    # what goes on
    "state.idle": ("Ready. Press Draw.", "就绪，请点击“生成”。"),
    "state.first": ("Drawn beforehand. Press Draw for your own.", "这是预先生成的，点击“生成”试试您自己的设置。"),
    "state.waiting": ("{ahead} before you.", "前面还有 {ahead} 个任务。"),
    "state.waiting_about": ("{ahead} before you, about {seconds} s.", "前面还有 {ahead} 个任务，约 {seconds} 秒。"),
    "state.starting": ("Starting.", "正在开始。"),
    "state.step": ("Step {step} of {steps}.", "第 {step} 步，共 {steps} 步。"),
    "state.writing": ("Writing the files.", "正在写入文件。"),
    "state.stopping": ("Stopping after this step.", "本步完成后停止。"),
    "state.stopped": ("Stopped. Finished pictures: {count}.", "已停止，完成 {count} 张。"),
    "state.done": ("Pictures: {count}, in {seconds} s.", "{count} 张图片，用时 {seconds} 秒。"),
    "state.sheet_done": ("The sheet is ready, in {seconds} s.", "对比图已完成，用时 {seconds} 秒。"),
    "state.full": (
        "The desk is full: {waiting} jobs are waiting, {own} of them yours. Your settings are kept; press Draw again in a while.",
        "队列已满：{waiting} 个任务排队，其中 {own} 个是您的。设置已保留，请稍后再试。",
    ),
    "state.killed": (
        "The drawing process was killed, perhaps because memory ran out. It starts again by itself. Your settings are kept: press Draw.",
        "生成进程被终止，可能是内存不足。进程会自动重启，设置已保留，请再次点击“生成”。",
    ),
    "state.lost": (
        "The drawing process ended in the middle of this. It starts again by itself. Your settings are kept: press Draw.",
        "生成进程中途结束。进程会自动重启，设置已保留，请再次点击“生成”。",
    ),
    "state.broke": ("Something broke (code {code}); the server's log has the details.", "出错了（代码 {code}），详情见服务器日志。"),
    "state.loaded": ("Settings loaded.", "设置已载入。"),
    "state.left_out": ("Settings loaded, but for: {names}.", "设置已载入，但不包括：{names}。"),
    # training
    "train.tab": ("Train", "训练"),
    "train.off": (
        "Training is off on this shared page. At the command line: diffsteer train DATA --out runs/first",
        "此共享页面不提供训练。请用命令行：diffsteer train DATA --out runs/first",
    ),
    "train.data": ("Pictures to learn from", "训练用图片"),
    "train.more_data": (
        "Folders of your own are offered when the app is started with --data FOLDER.",
        "启动时加上 --data FOLDER，即可选择您自己的文件夹。",
    ),
    "train.start": ("Settings", "训练设置"),
    "train.plan": ("planned for this machine", "按本机规划"),
    "train.plain": ("the defaults", "默认设置"),
    "train.recipe": ("recipe {name} (--recipe)", "配方 {name}（--recipe）"),
    "train.finetune": ("fine-tune this page's model ({model})", "微调本页的模型（{model}）"),
    "train.budget": ("Time (--budget)", "时间（--budget）"),
    "train.budget_20s": ("20 s, to see it work", "20 秒，先看看过程"),
    "train.budget_2m": ("2 min", "2 分钟"),
    "train.budget_10m": ("10 min", "10 分钟"),
    "train.budget_1h": ("1 h", "1 小时"),
    "train.name": ("Name of the run (empty: made up)", "训练记录名称（留空自动命名）"),
    "train.set_size": ("Side in pixels (--size)", "图片边长，像素（--size）"),
    "train.set_batch_size": ("Batch size (--batch-size)", "批大小（--batch-size）"),
    "train.set_lr": ("Learning rate (--lr)", "学习率（--lr）"),
    "train.set_seed": ("Seed (--seed)", "随机种子（--seed）"),
    "train.look": ("Check the pictures", "检查图片"),
    "train.look_first": ("Check the pictures first: Start is open after that.", "请先检查图片，然后才能开始训练。"),
    "train.go": ("Start", "开始训练"),
    "train.sheet": ("What the model will see", "模型将看到的图片"),
    "train.waiting": ("Waiting for other jobs.", "等待其他任务。"),
    "train.reading": ("Reading every picture.", "正在读取所有图片。"),
    "train.found": ("{count} pictures of {width}×{height} pixels, {kind}.", "{count} 张图片，{width}×{height} 像素，{kind}。"),
    "train.classes": ("{count} classes: {named}", "{count} 个类别：{named}"),
    "train.planning": ("Measuring this machine for a plan.", "正在测量本机以制定计划。"),
    "train.planned": (
        "The plan: {steps} steps, {epochs} times through the data, {seconds} from start to end, {memory} GiB of memory. Press Start.",
        "计划：{steps} 步，遍历数据 {epochs} 遍，全程 {seconds}，内存 {memory} GiB。请点击“开始训练”。",
    ),
    "train.ready": ("Fit to be trained on. Press Start.", "可以训练，请点击“开始训练”。"),
    "train.none": (
        "No training yet. Check the pictures of “digits”, then start 20 s of it to see the whole path.",
        "还没有训练。可先检查 digits 的图片，再训练 20 秒，看看全过程。",
    ),
    "train.run": ("Run", "训练记录"),
    "train.stop": ("Stop", "停止"),
    "train.resume": ("Go on", "继续训练"),
    "train.open": ("Draw with it", "用它生成"),
    "train.preview": ("Preview", "预览"),
    "train.preview_at": ("Preview at step {step}", "第 {step} 步的预览"),
    "train.back": ("Look back", "回看"),
    "train.loss": ("Loss", "损失"),
    "train.step": ("step", "步"),
    "train.mean_loss": ("loss", "损失"),
    "train.log": ("Log", "日志"),
    "train.stopping": (
        "It ends after this step and saves. Press Stop again to end it at once.",
        "本步完成后保存并结束。再次点击“停止”将立即结束。",
    ),
    "train.opening": ("Loading the model.", "正在载入模型。"),
    "train.reloading": ("The page comes back with this model in a moment.", "页面稍后将以此模型重新打开。"),
    "train.state_starting": ("{name}: starting.", "{name}：正在启动。"),
    "train.state_measuring": ("{name}: measuring, before the first step.", "{name}：第一步之前，正在测量。"),
    "train.state_running": (
        "{name}: step {step} of {steps}, about {left} left, loss {loss}.",
        "{name}：第 {step} 步，共 {steps} 步，约剩 {left}，损失 {loss}。",
    ),
    "train.state_stopping": (
        "{name}: saving at step {step} of {steps}, then it ends. Press Stop again to end it at once.",
        "{name}：在第 {step} 步（共 {steps} 步）保存后结束。再次点击“停止”将立即结束。",
    ),
    "train.state_finished": (
        "{name}: finished, {steps} steps in {seconds}, loss {loss}. Press Draw with it.",
        "{name}：已完成，{steps} 步，用时 {seconds}，损失 {loss}。可点击“用它生成”。",
    ),
    "train.state_stopped": (
        "{name}: stopped at step {step} of {steps}. Go on continues where it was.",
        "{name}：停在第 {step} 步，共 {steps} 步。点击“继续训练”可接着训练。",
    ),
    "train.state_failed": ("{name}: failed at step {step}: {why}", "{name}：在第 {step} 步失败：{why}"),
    "train.state_lost": (
        "{name}: ended unexpectedly at step {step} of {steps}, killed or out of memory. {why}",
        "{name}：在第 {step} 步（共 {steps} 步）意外结束，可能被终止或内存不足。{why}",
    ),
    # runs
    "runs.tab": ("Runs", "训练记录"),
    "runs.choose": ("Runs, newest first", "训练记录，最新在前"),
    "runs.where": ("All that is in the folder {runs}.", "文件夹 {runs} 中的全部记录。"),
    "runs.show": ("Look again", "刷新"),
    "runs.compare": ("Compare", "对比"),
    "runs.none": ("No runs yet. The tab Train makes them, and diffsteer train.", "还没有训练记录。可在“训练”页或用 diffsteer train 创建。"),
    "runs.shown": ("Runs shown: {count}.", "显示 {count} 个训练记录。"),
    "runs.column_run": ("Run", "训练记录"),
    "runs.column_state": ("State", "状态"),
    "runs.column_steps": ("Steps", "步数"),
    "runs.column_loss": ("Last loss", "最近损失"),
    "runs.state_starting": ("… starting", "… 启动中"),
    "runs.state_running": ("▶ training", "▶ 训练中"),
    "runs.state_stopping": ("… saving", "… 保存中"),
    "runs.state_finished": ("✓ finished", "✓ 已完成"),
    "runs.state_stopped": ("■ stopped", "■ 已停止"),
    "runs.state_failed": ("⚠ failed", "⚠ 失败"),
    "runs.state_lost": ("⚠ ended unexpectedly", "⚠ 意外结束"),
    "runs.step": ("Previews at the step nearest to", "显示最接近此步的预览"),
    "runs.previews": ("Previews", "预览"),
    "runs.at": ("{name} · step {step}", "{name} · 第 {step} 步"),
    "runs.figure": ("Over the minutes of training", "随训练时间变化"),
    "runs.comparing": ("Comparing.", "正在对比。"),
    "runs.compared": ("The same at the command line: {command}", "命令行中相同的操作：{command}"),
    # lengths
    "long.seconds": ("{seconds} s", "{seconds} 秒"),
    "long.minutes": ("{minutes} min {seconds} s", "{minutes} 分 {seconds} 秒"),
    "long.hours": ("{hours} h {minutes} min", "{hours} 小时 {minutes} 分"),
    # mistakes
    "wrong.run": ("There is no such run.", "没有这个训练记录。"),
    "wrong.two_runs": ("Choose two runs or more.", "请选择两个或更多训练记录。"),
    "wrong.training": (
        "{name} is being trained; one at a time. Stop it, or wait for it.",
        "{name} 正在训练，同时只能训练一个。请停止它或等待完成。",
    ),
    "wrong.not_begun": ("It ended before there was anything to go on with. Start anew.", "训练尚未真正开始就已结束，请重新开始。"),
    "wrong.name": (
        "A run's name has letters, digits, points, dashes and underlines, and begins with a letter or digit.",
        "训练记录名称由字母、数字、点、短横线和下划线组成，且以字母或数字开头。",
    ),
    "wrong.taken": (
        "There is a run {name} already; give another name, or go on with that one.",
        "训练记录 {name} 已存在，请换名或继续它。",
    ),
    "wrong.time": ("Write a time as 90s, 20m or 2h.", "时间请写成 90s、20m 或 2h。"),
    "wrong.pictures": (
        "That would be {count} pictures; the limit is {most}. Choose fewer labels, or fewer of each.",
        "共 {count} 张图片，上限为 {most} 张。请减少类别或每类张数。",
    ),
    "wrong.steps": ("Steps are from 1 to {most} here; {steps} was given.", "采样步数应为 1 到 {most}，给出的是 {steps}。"),
    "wrong.number": ("{what}: a number is needed.", "{what}：需要一个数字。"),
    "wrong.label": ("There is no label {label} here.", "没有类别 {label}。"),
    "wrong.longest": (
        "That would take about {seconds} s here; the limit is {most} s. Take fewer pictures or fewer steps.",
        "大约需要 {seconds} 秒，上限为 {most} 秒。请减少图片或步数。",
    ),
    "wrong.sentence": ("Write what it should look like, in at most {most} letters.", "请写下希望的样子，最多 {most} 个字符。"),
    "wrong.picture": ("Give a picture first: steering by a picture or a mask needs one.", "请先上传图片：参考图片和蒙版都需要它。"),
    "wrong.mask": (
        "Paint a part of the picture first: it is drawn anew, and something has to be kept.",
        "请先涂抹图片的一部分：该部分重新生成，且须保留一部分。",
    ),
    "wrong.values": ("Write some values to compare, such as {example}.", "请写下要对比的取值，例如 {example}。"),
    "wrong.unknown": ("That is not offered here.", "此处不提供该选项。"),
    "upload.bytes": ("The file has {size} MB; the limit is {most} MB.", "文件为 {size} MB，上限为 {most} MB。"),
    "upload.pixels": (
        "The picture has {width}×{height} pixels; the limit is {most} million.",
        "图片为 {width}×{height} 像素，上限为 {most} 百万像素。",
    ),
    "upload.no_picture": ("{name} is no PNG, JPEG or WebP picture that can be read.", "{name} 不是可读取的 PNG、JPEG 或 WebP 图片。"),
    "upload.no_recipe": (
        "{name} holds no recipe: it was not drawn by diffsteer, or another program saved it again.",
        "{name} 不含配方：不是由 diffsteer 生成，或被其他程序重新保存过。",
    ),
}
