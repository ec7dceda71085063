# The recipes as a C table: awk -f embed.awk NAME.yaml...
# A recipe begins with comments that say what it is: "# NAME: what it trains", then "# version: N", "# accuracy: ...", "# source: ...".
function quoted(s,    i, c, out) {
    for (i = 1; i <= length(s); i++) {
        c = substr(s, i, 1)
        out = out (index("\\\"?", c) ? "\\" c : c) # "?": no trigraphs
    }
    return "\"" out "\""
}
function comment(key) { # the rest of a comment line that begins so; else ""
    return index($0, "# " key ": ") == 1 ? substr($0, length(key) + 5) : ""
}
function finish() {
    if (name == "") return
    if (title == "" || version !~ /^[1-9][0-9]*$/ || accuracy == "" || source == "" || model == "") {
        print name ".yaml: title, version, accuracy, source or model is missing" > "/dev/stderr"
        exit 1
    }
    printf "    {%s, %s, %s, %s, %s, %d,\n%s},\n", quoted(name), quoted(title), quoted(accuracy), quoted(source), quoted(model), version, text
}
BEGIN { print "/* Made by tools/recipes/embed.awk. */\n#include \"tools/cli/recipes.h\"\nconst fv_recipe fv_recipes[] = {" }
FNR == 1 {
    finish()
    name = FILENAME
    sub(/.*\//, "", name)
    sub(/\.yaml$/, "", name)
    title = comment(name)
    version = accuracy = source = model = text = ""
}
{
    if (comment("version") != "") version = comment("version")
    if (comment("accuracy") != "") accuracy = comment("accuracy")
    if (comment("source") != "") source = comment("source")
    if ($1 == "model:") model = $2
    text = text "     " quoted($0) " \"\\n\"\n"
}
END {
    finish()
    print "};\nconst int fv_recipe_count = sizeof fv_recipes / sizeof *fv_recipes;"
}
