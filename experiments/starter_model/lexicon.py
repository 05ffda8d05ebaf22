"""Word lists written for this recipe: common English words and common Japanese words and phrases.

The nouns, verbs and adjectives fill the templates of the synthetic corpus; all of the lists together
teach the tokenizer whole words, so that ordinary English text needs few tokens per word.
"""

NOUNS = """
time year people way day man woman child world school state family student group country problem hand part place case week
company system program question work government number night point home water room mother area money story fact month lot
right study book eye job word business issue side kind head house service friend father power hour game line end member law
car city community name president team minute idea body information back parent face level office door health person art war
history party result change morning reason research girl guy moment air teacher force education foot boy age policy music
market sense nation plan college interest death experience effect use class control field development role effort rate heart
drug show leader light voice wife police mind price report decision son view relationship town road arm difference value
building action season society tax director position player record paper space ground form event official matter center
couple site project activity star table need court oil situation cost industry figure street image phone data picture
practice piece land product doctor wall patient worker news test movie north love support technology step baby computer type
attention film tree source organization hair window culture chance brother energy period course summer plant opportunity
term letter condition choice rule daughter south husband floor campaign material population call economy hospital church
risk fire future bank west sport board subject officer rest behavior performance top goal second bed order author blood
agency nature color store sound movement page race concern series language response animal factor decade article east
artist scene stock career treatment approach size dog fund media sign thought list individual quality pressure answer
resource meeting disease success cup amount ability staff character growth loss degree attack region television box
training trade deal election feeling standard bill message analysis benefit sex lawyer section glass skill sister professor
operation crime stage authority design sort knowledge gun station strategy truth song example environment leg dark cell
message dinner key bridge river garden ship boat train harbor island mountain lake forest museum library tower castle
temple palace square gate market farm mill factory ticket engine wheel clock lamp chair desk shelf basket bottle coat hat
shoe ring coin stone metal wood silver gold iron copper salt sugar bread milk tea coffee fruit apple orange cherry fish
horse cat bird wolf bear lion tiger rabbit fox sheep goat duck eagle owl whale snake frog bee spider dragon king queen
prince knight captain soldier sailor farmer baker driver pilot nurse engineer lawyer painter singer writer editor manager
chef guard clerk judge mayor visitor guest neighbor customer owner partner rival hero map flag badge code label symbol
password motto signal schedule recipe tool device machine robot camera screen battery cable pipe valve sensor motor
weight height length width depth speed distance score grade rank level temperature color shape flavor smell texture style
""".split()

VERBS = """
carry:carried find:found build:built paint:painted repair:repaired open:opened close:closed visit:visited sell:sold
buy:bought write:wrote read:read design:designed record:recorded move:moved break:broke lose:lost bring:brought
clean:cleaned collect:collected discover:discovered draw:drew study:studied teach:taught win:won watch:watched
measure:measured inspect:inspected deliver:delivered receive:received send:sent hide:hid steal:stole borrow:borrowed
return:returned test:tested order:ordered make:made plant:planted cook:cooked wash:washed hold:held keep:kept
launch:launched publish:published film:filmed photograph:photographed examine:examined install:installed
remove:removed replace:replaced restore:restored describe:described present:presented review:reviewed praise:praised
choose:chose pack:packed count:counted guard:guarded follow:followed rent:rented donate:donated lift:lifted
""".split()

ADJECTIVES = """
new good high old great big american small large national young different black long little important political bad
white real best social public able human local late hard major better economic strong possible whole free military true
federal international full special easy clear recent certain personal open red difficult available likely short single
medical current wrong private past foreign fine common poor natural significant similar hot dead central happy serious
ready simple left physical general environmental financial blue democratic dark various entire close legal religious cold
final main green nice huge popular traditional cultural wide bright quiet heavy empty round soft loud narrow tall deep
warm fresh broken clean dirty famous ancient modern rare cheap expensive useful strange gentle proud brave clever lazy
early yellow purple orange brown grey pink silver golden crimson violet
""".split()

FUNCTION_WORDS = """
the of and to in a is that was for on are as with his they at be this from have or by one had not but what all were when
we there can an your which their said if do will each about how up out them then she many some so these would other into
has more her two like him see than been who its now did get come made may part over no after between most where through
much before also around another three small put end why asked went need off again still should because during without
within against until while under both few those own same any only very just such even well back here too must might since
although however therefore per upon among toward across behind below above along near every either neither nor yet once
never always often sometimes usually already soon later today tomorrow yesterday first second third last next several
according including following based using given known called named found used described written located born died became
began ended won lost held led built founded released published produced played worked lived moved served joined left
returned received became appeared included remained followed considered established developed created introduced designed
whose whom whether could shall does doing being having it he i you my our me us himself itself themselves four five six
seven eight nine ten eleven twelve twenty thirty forty fifty hundred thousand million billion half quarter
""".split()

MORE_WORDS = """
able about accept account achieve across act add address administration admit adult affect agree ahead allow almost alone
along alternative amazing ancestor announce annual anyone anything appear apply area argue arrive artificial ask assume
attempt attend attract average avoid award bacteria battle beautiful become begin believe belong beyond bishop border
branch break british broad budget camp capital capture carbon catch cause celebrate cell century ceremony chain champion
championship championships chapter charge chemical chief chinese choose christian citizen civil claim climate coach coast
coastal code collapse colony combine command commerce commission committee communicate communication compare compete
complete complex component compose composed compound concept concert conclude conduct conference confirm conflict congress
connect conquer consider consist constant constitution construct construction contain contemporary content continent
continue contract contribute convert council county cover create crisis cross crowd cultivate currency cycle daily
damage decide declare decline decrease defeat defence defend defense define deliver demand demonstrate department depend
describe desert despite destroy detail determine develop device die diet direct disagree discuss distribute district
diverse divide document dominate double dramatic dream drive drop due duke duty dynasty earth easily eat economic edge
edition educate eight elect electric electron element emperor empire employ enable encourage enemy engage english enjoy
enough ensure enter epic equal equation equipment era escape especially essential estate estimate ethnic europe european
eventually evidence evolution evolve exact exchange exist expand expect expedition explain explore export express extend
extensive extra extreme failure fall famous feature female festival fight finally firm flow focus foreign formal former
formula fortress foundation france french frequently function fuel gain gallery gas general generate generation genetic
german germany global god govern governor gradual graduate grant grow guide habitat happen heat heavy help hemisphere hide
highest highway historian historic hold host household huge hunt identify identity imperial imply import improve
inch include income increase independence independent india indian indicate indigenous influence inform inhabit initial
inside inspire instance instead institute institution instrument insurance intelligence intend interior internal interpret
introduce invade invent invest investigate investment involve islam issue italian italy japan japanese jewish join journal
journey judge jurisdiction justice kilometer kingdom know laboratory labor labour lack language largely latin launch layer
lead league learn legend legislation length less liberal liberty library life limit link literature live located logic
lower magazine maintain majority manage manufacture marine mark marry mass massive master match mathematics maximum mean
mechanical medicine medieval mental merchant metal method metre military minister minor minority mission mix mobile model
modern modify molecule monarch monument motion multiple murder muscular mutual myth narrative native navy nearly
necessary negotiate network neutral nobel nominate normal northern note novel nuclear object observe obtain occasion
occupy occur ocean offer office oppose opposite option orchestra organ organism organize origin original outside overall
oxygen package parallel park parliament participate particle particular pass path pattern pay peace peak people percent
percentage perform perhaps permanent permit persian perspective philosophy physician physics plain planet plastic player
please poem poet poland polish political pollution pope port portion portrait positive possess post potential poverty
predict prefer prepare presence preserve prevent previous primary prime principle print priority prison private prize
probably process produce production profession profit progress prohibit promise promote proper property propose protect
protein protest prove provide province publication pull purchase purpose push quantity quickly quote radiation radio
railway raise range rapid rather reach react reaction reader realize reality rebel recognize recommend recover reduce
refer reflect reform refugee refuse regard regime regional register regular reign reject relate relation relative
release relevant religion remain remember remote remove repeat replace represent republic request require rescue
reserve reside residence resident resist resolve respect respond responsible restaurant restore result retain retire
retreat reveal revenue revolution revolutionary rich rise ritual roman roof root rough route royal run rural russia russian
sacred sample satellite save scale school science scientific scientist score search seat secretary secure security seek
seem select senate senior separate sequence serve session settle settlement seven severe shift shoot shore shoulder
significant similarly site slave slightly slow smart soil solar sold soldier solid solution solve somewhat soul source
southern soviet spanish speak species specific spend spirit split spread spring stable stadium stand start statement
station statistics statue status stay steam steel stop storage storm straight strategic stream strength stretch strike
structure struggle style submit succeed suffer suggest suitable supply supreme surface surround survey survive suspect
switch symbol tail talent target task technique telephone temperature temporary tend territory text theater theatre theme
theory thick thin thing think threat throughout throw thus tie title together tool total touch tour tournament track
tradition transfer transform transition translate transport travel treat treaty trend trial tribe tribute trip troops
tropical trouble trust try turn twice typical ultimate understand union unique unit united unity universe university
unknown unless unusual upper urban vaccine valley vary vast vehicle version vessel victim victory video village violence
virus visible vision visual vital vocal volume vote wage wait walk want warrior wave weak wealth weapon wear weather
weekly weight welcome western wheel wide wild win wind wing winter wish withdraw witness wonder worth wound yard yield
field document answer question context passage text response query extract return only with exactly using short phrase
copy read look find fields format json value key input output inputs outputs instruction instructions following structure
section record description entry note notes report summary details article reference information message request target
""".split()

FIRST_NAMES = """
Anna Ben Carla David Elena Frank Grace Henry Iris Jack Karen Leo Maria Nora Oscar Paul Quinn Rosa Sam Tina Victor Wendy
Adam Bella Clara Daniel Emma Felix Gina Hugo Ivan Julia Kevin Laura Mark Nina Oliver Petra Ralph Sara Tom Uma Vera Walter
Alice Bruno Cora Diego Edith Fiona George Hana Isaac Jonas Kate Lucas Mina Noah Olga Peter Rita Simon Theo Viola Zoe
Amir Bianca Cyrus Dora Eric Freya Gordon Helga Ida Joel Kira Lars Mona Neil Otto Priya Ravi Sonia Tariq Ursula Yusuf
""".split()

JA_SURNAMES = "佐藤 鈴木 高橋 田中 渡辺 伊藤 山本 中村 小林 加藤 吉田 山田 佐々木 山口 松本 井上 木村 林 清水 斎藤 森 池田 橋本 石川 前田".split()
JA_PLACES = "東京 大阪 京都 札幌 福岡 名古屋 仙台 広島 神戸 横浜 長崎 金沢 奈良 熊本 松山 新潟 静岡 岡山 高松 那覇 青森 盛岡 秋田 山形".split()
JA_JOBS = "医者 教師 画家 作家 記者 料理人 農家 運転手 歌手 弁護士 技術者 看護師 写真家 漁師 建築家 警察官 店員 研究者 俳優 大工".split()
JA_THINGS = "本 車 時計 犬 猫 馬 茶 絵 花 自転車 船 帽子 鞄 傘 写真 楽器 地図 椅子 机 靴 石 魚 米 酒 手紙 切手 人形 電車".split()
JA_COLOURS = "赤 青 緑 白 黒 黄色 紫 茶色 銀色 金色".split()
JA_PHRASES = (
    "次の文書を読んで質問に答えてください。 質問 文書 答え 回答 文章 本文 名前 場所 日付 年 月 日 人 町 国 会社 駅 学校 大学 歴史 世界 日本 "
    "これは それは あれは ここで そこで です。 ました。 います。 あります。 でした。 ください。 とき こと もの ため から まで より について として "
    "という した する して される された いる ある なる なった できる できた れる られる など また しかし そして その この どこ だれ 何 いつ "
    "いくつ どの どんな なぜ 入力 出力 形式 欄 値 指示 文書から答えを抜き出してください。 短く答えてください。 最も 多く 中 前 後 時代 世紀 "
    "政府 戦争 都市 人口 地域 文化 経済 社会 教育 科学 技術 発見 研究 開発 建設 設立 生産 使用 重要 主要 一部 全体 例えば"
).split()
