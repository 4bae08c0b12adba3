from prefloop.report.markup import Html, cut, join, tag, visible


def test_text_is_escaped_and_markup_is_not():
    assert tag("p", "<b>", tag("i", "&")).text == "<p>&lt;b&gt;<i>&amp;</i></p>"


def test_an_attribute_cannot_be_broken_out_of():
    assert tag("p", title='"><script>').text == '<p title="&quot;&gt;&lt;script&gt;"></p>'


def test_attributes_that_are_none_or_false_are_left_out_and_true_ones_stand_alone():
    assert (
        tag("details", open=True, id=None, hidden=False, data_label="x", class_="y").text
        == '<details open data-label="x" class="y"></details>'
    )


def test_parts_are_joined_and_nothing_is_skipped():
    assert join("a", None, Html("<br/>"), "<", between=" & ").text == "a &amp; <br/> &amp; &lt;"


def test_readable_text_stays_as_it_is():
    for text in ("plain", "two\nlines\tand a tab", "中文，标点。", "naïve – “quotes” 👩‍🔬 नमस्ते", "a\u00a0b"):
        assert visible(text) == text


def test_windows_line_ends_are_line_ends():
    assert visible("one\r\ntwo") == "one\ntwo"


def test_half_a_surrogate_pair_cannot_break_the_file():
    assert visible("a\ud83d").encode() == "a⟨U+D83D⟩".encode()


def test_what_is_cut_off_is_said():
    assert cut("abcdef", "({n} more)", longest=4) == "abcd (2 more)"
    assert cut("abcd", "({n} more)", longest=4) == "abcd"
