"""Texts, and whether tritonserver's parser takes them: `server/test_pbtext.py` asks a real one.

The lists named PYTHON_… are those on which protobuf's own Python parser is of the other opinion.
"""

from __future__ import annotations


def _in_float(*values: str) -> list[bytes]:
    return [f"sequence_batching {{ direct {{ minimum_slot_utilization: {value} }} }}".encode() for value in values]


def _in_bool(*values: str) -> list[bytes]:
    return [f"input {{ optional: {value} }}".encode() for value in values]


def _in_name(*literals: str) -> list[bytes]:
    return [f"name: {literal}".encode() for literal in literals]


def _in_size(*values: str) -> list[bytes]:
    return [f"max_batch_size: {value}".encode() for value in values]


TAKEN = [
    *(b"", b"# c", b"\n\r\n\t\f\v", b"name:'x'\r#c\rbogus:1", b"name\f:\v'x'", b"name#c\n:#d\n'x'#e\n'y'"),
    *(b"name:'x'backend:'y'", b"max_batch_size:1,name:'x';", b"input{},output[{},{}];", b"input:[],"),
    *(b"input[]", b"input:<>", b"input<name:'x'>", b"input:{}", b"input{dims:[]}", b"input{dims:[1,2]dims:3 dims:[4]}"),
    *(b"input{data_type:TYPE_FP32}", b"input{data_type:11}", b"input{data_type:999}", b"input{data_type:-1}"),
    b"input{data_type:0xb}",
    *_in_size("0x10", "0X1F", "010", "00", "-0", "2147483647", "-2147483648"),
    *_in_bool("true", "True", "t", "false", "False", "f", "0", "1"),
    *_in_float("1", "-1.5", ".5", "1.", "1e5", "1e+5", "1E-5", "1e400", "1e39", "1.e3", "0e1", "-.5", "inf", "-inf"),
    *_in_float("INF", "Infinity", "nan", "-nan", "1f", "1F", "1e5f", "5.f", "18446744073709551616"),
    *_in_name("'x' \"y\"", "'\"' \"'\"", "'\x01\x7f\t\r'", "'\xe9'", r"'\x4'", r"'\x414'", r"'\1234'", r"'\u00e9'"),
    *_in_name(r"'\U0010ffff'", r"'\a\b\f\n\r\t\v\\\'\"'", r"'\0'", r"'\xc3\xa9'", r"'\xe2\x82' '\xac'"),
    *(b"name:'' name:'y'", b"max_batch_size:0 max_batch_size:1", b"input{optional:false optional:true}"),
    *_in_float("0 minimum_slot_utilization: 1", "1e-60 minimum_slot_utilization: 1"),
    *(b"parameters{}", b"parameters{key:'a'}", b"parameters{value{} key:'b'}", b"parameters:[{key:'a'},{key:'a'}]"),
    b"version_policy{latest{num_versions:4294967295}}",
    b"version_policy{specific{versions:9223372036854775807 versions:-9223372036854775808}}",
    b"dynamic_batching{default_queue_policy{default_timeout_microseconds:18446744073709551615}}",
]

PYTHON_REFUSES = [
    *(b"name:'\xff'", b"#\xff\nname:'x'", b"name:'\xe2\x82' '\xac'"),  # bytes that are no UTF-8
    *_in_name(r"'\377'", r"'\400'", r"'\777'", r"'\ud800'", r"'\ud83d\ude00'", r"'\U00110000'", r"'\U001fffff'"),
    *_in_size("- 1", "-\n#c\n1"),
    *_in_float("- inf", "- 1"),
    *(b"input{dims:[- 1]}", b"input{data_type:- 1}"),
    *_in_bool("00", "01", "0x0", "0x1"),
]

REFUSED = [
    *(b"\xef\xbb\xbfname:'x'", b"name:'x'\0", b"name:\x01'x'", b"name:'x'\x1a", b"name:'x' \x7f", b"\xc3\xa9:1"),
    *(b"// c", b"/* */", b"5:1", b"'name':'x'", b"name='x'", b"na me:'x'", b"name.x:1", b"name/x:1", b"_:1"),
    *(b"bogus:1", b"bogus{bogus{bogus{}}}", b"Name:'x'", b"Input{}", b"[a.b]:1", b"input{[a.b]:1}"),
    b"[type.googleapis.com/inference.ModelConfig]{}",
    *(b",", b";name:'x'", b"max_batch_size:1,,name:'x'", b"max_batch_size:1;,", b"name:'x';;"),
    *(
        b"}",
        b"input{",
        b"input{}}",
        b"input{name:'x'>",
        b"input<name:'x'}",
        b"input::{}",
        b"input;{}",
        b"input",
        b"name",
    ),
    *(b"input[{},]", b"input[{}{}]", b"input{dims:[1,]}", b"input{dims:[1 2]}", b"input{dims:[[1]]}", b"input{dims:["),
    *(b"input{dims:[1", b"input{dims:[1}", b"input{dims[]}", b"input{dims[1]}", b"input{dims:{}}", b"input:5"),
    *(b"name:[]", b"name:['x']", b"dynamic_batching[{}]", b"dynamic_batching:[]", b"dynamic_batching[]"),
    *_in_size("08", "--1", "1.0", "1e1", "1f", "'1'", "true", "2147483648", "-2147483649", "9" * 23, "9" * 5000),
    *_in_size("1name: 'x'", "1ensemble_scheduling {}", "0x", "0xg", "1.", "1 .5", "1u", "", "{}"),
    *_in_bool("2", "TRUE", "T", "F", "yes", "-0", "-1", "'true'", "1.0", "1f", "{}"),
    *_in_float("0x10", "010", "00", "08", "inff", "infinit", "true", "'1'", "1.5.5", "1..5", "1e", "1e+", ".", "+1"),
    *_in_float("00.5", "1.5e3.2", "1f.5", "0x1.5", "1ef", "--1", "1d", "{}"),
    *(b"input{data_type:type_fp32}", b"input{data_type:'TYPE_FP32'}", b"input{data_type:1.0}", b"input{data_type:{}}"),
    *(b"input{data_type:2147483648}", b"input{data_type:-2147483649}", b"input{data_type:-TYPE_FP32}"),
    *_in_name("x", "5", "{}", "`x`", "u'x'", "'x", "'x\ny'", r"'\xg'", r"'\u12'", r"'\U00200000'", "'x\\"),
    *(b"name 'a'", b"name:", b"name:-'x'"),
    *(
        b"name:'x' name:'y'",
        b"name:'y' name:''",
        b"max_batch_size:1 max_batch_size:0",
        b"optimization{} optimization{}",
    ),
    *(b"dynamic_batching{} sequence_batching{}", b"version_policy{all{}all{}}", b"version_policy{all{}latest{}}"),
    *_in_float("-0.0 minimum_slot_utilization: 1", "nan minimum_slot_utilization: 1"),
    b"model_warmup{inputs{key:'a' value{zero_data:false random_data:true}}}",
    b"model_warmup{inputs{key:'a' value{zero_data:false zero_data:true}}}",
    *(b"parameters{key:'a' key:'b'}", b"parameters{value{} value{}}", b"parameters{key:5}", b"parameters{foo:5}"),
    *(b"parameters{key:['a']}", b"parameters{'a':{}}", b"parameters{key:'a' value:'b'}"),
    b"version_policy{latest{num_versions:-1}}",
    b"version_policy{latest{num_versions:4294967296}}",
    b"version_policy{specific{versions:9223372036854775808}}",
    b"dynamic_batching{default_queue_policy{default_timeout_microseconds:18446744073709551616}}",
]

PYTHON_TAKES = [
    *(b"name:'x\0y'", b"#\0\nname:'x'", b"name:'x'\xc2\xa0", b"name:'x'\xe2\x80\xa8"),
    *_in_name(r"'\q'", r"'\8'", r"'\X41'", r"'\`'"),
    *_in_size("+1", "1_0"),
    b"version_policy{latest{num_versions:-0}}",
    b"dynamic_batching{default_queue_policy{default_timeout_microseconds:-0}}",
    *(b"parameters{key:'' key:'b'}", b"cc_model_filenames{key:'a' value:'' value:'c'}"),
]

# String literals, and what the server's configuration endpoint gives back of them.
STRINGS = {
    b"'a' \"b'\" #c\n'\\\\'": "ab'\\",
    rb"'\ud83d\ude00'": "\U0001f600",
    rb"'\U0000d83d\ude00'": "\U0001f600",
    rb"'\U00110000'": r"\U00110000",
    rb"'\401'": "\x01",
    rb"'\x414'": "A4",
    rb"'\1234'": "S4",
    rb"'\a\b\f\n\r\t\v\?\'\"\\'": "\a\b\f\n\r\t\v?'\"\\",
    b"'\xe2\x82' '\xac'": "€",
    b"'\xc3\\251'": "é",
    b"'a\x01\x7f\tb'": "a\x01\x7f\tb",
}
NOT_UTF8 = [
    rb"'\377'",
    b"'\xff'",
    rb"'\ud800'",
    rb"'\ud83d' '\ude00'",
    rb"'\ud83d\U0000de00'",
    rb"'\777'",
    b"'\xed\xa0\x80'",
]
