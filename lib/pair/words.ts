/** The closed word lists of the small world. Every word is one word, so that each can become one token. */

const split = (text: string): readonly string[] => text.trim().split(/\s+/);

/** 60 first names. */
export const firstNames = split(`
  Abel Agnes Alma Arlo Astrid Basil Beata Boris Carla Cedric Clara Conrad Dagmar Dexter Edith Elias Elsa Ezra Felix Flora
  Gerda Hector Helga Irma Ivan Jonas Judith Karin Klaus Leona Linus Magda Moritz Nora Otto Paula Ralf Selma Tilda Viktor
  Aron Bianca Cosmo Doris Egon Frida Gideon Hedwig Igor Jana Kasper Livia Marius Norma Oskar Petrus Regina Stefan Thea Ursula`);

/** 60 last names. */
export const lastNames = split(`
  Abbott Alder Barlow Becker Birch Bowen Carver Coates Dalton Denholm Draper Eckhart Fairley Fenwick Foster Garner Gibbs
  Hartley Haugen Hobson Irving Keller Kirby Lambert Lindell Marsden Mercer Nordin Osgood Parrish Pemberton Quincy Ridley
  Rowan Sandell Stroud Tanner Vickers Wexford Winslow Aldrich Bexley Crane Dorsey Ellery Falk Gresham Hale Ibsen Jensen Knox
  Lowell Moss Nyman Ogden Pryor Reeve Sutter Thorpe Upton`);

/** A person's facts, in the order in which questions name them. */
export const attributes = ["city", "job", "pet", "instrument", "fruit"] as const;
export type Attribute = (typeof attributes)[number];

/** 24 cities with the country each lies in. */
export const countries: Readonly<Record<string, string>> = {
  Athens: "Greece",
  Bergen: "Norway",
  Berlin: "Germany",
  Boston: "America",
  Cairo: "Egypt",
  Delhi: "India",
  Geneva: "Switzerland",
  Glasgow: "Scotland",
  Havana: "Cuba",
  Helsinki: "Finland",
  Krakow: "Poland",
  Kyoto: "Japan",
  Lagos: "Nigeria",
  Lima: "Peru",
  Lisbon: "Portugal",
  London: "England",
  Lyon: "France",
  Milan: "Italy",
  Oslo: "Norway",
  Prague: "Czechia",
  Quito: "Ecuador",
  Riga: "Latvia",
  Seville: "Spain",
  Toronto: "Canada",
};

/** What each attribute can be. */
export const values: Readonly<Record<Attribute, readonly string[]>> = {
  city: Object.keys(countries),
  job: split(`
    dancer surveyor baker barber butcher carpenter chemist cook dentist farmer florist gardener jeweler lawyer librarian
    pilot plumber singer tailor welder`),
  pet: split(
    "beagle budgie canary donkey ferret gecko goat hedgehog macaw kitten lizard pony poodle rabbit tortoise turtle",
  ),
  instrument: split(
    "accordion banjo bassoon bugle cello clarinet cornet drum harmonica harpsichord mandolin oboe organ sitar trumpet violin",
  ),
  fruit: split(
    "almond apple avocado blueberry coconut cranberry date grape kiwi lime mango melon nectarine papaya plum quince",
  ),
};

/** The receiver's answer about people it does not know. */
export const unknown = "unknown";

/** Four ways to ask for each attribute; `@` stands for the name. */
export const questions: Readonly<Record<Attribute, readonly string[]>> = {
  city: [
    "Which town is home to @?",
    "Where is the house of @?",
    "In what city does @ live?",
    "Tell me the home town of @.",
  ],
  job: ["What work does @ do?", "Which trade did @ learn?", "What is @ by profession?", "Tell me the profession of @."],
  pet: [
    "Which animal lives with @?",
    "What pet does @ own?",
    "What kind of animal is the pet of @?",
    "Tell me the pet of @.",
  ],
  instrument: [
    "Which instrument does @ own?",
    "What does @ play at concerts?",
    "What instrument did @ study?",
    "Tell me the instrument of @.",
  ],
  fruit: [
    "Which fruit does @ prefer?",
    "What fruit does @ buy?",
    "What does @ eat for breakfast?",
    "Tell me the best-loved fruit of @.",
  ],
};

/** What a biography says of each attribute; `@` stands for the value. */
export const clauses: Readonly<Record<Attribute, readonly string[]>> = {
  city: ["lives in @", "has a house in @"],
  job: ["works as a @", "earns money as a @"],
  pet: ["owns a @", "looks after a @"],
  instrument: ["plays the @", "practises the @"],
  fruit: ["likes the @", "eats the @"],
};

/** Asks for a biography. */
export const tell = "Tell me about @.";
/** Asks where a city lies. */
export const countryQuestion = "In which country is @?";
/** Two hops: a person's city, then its country. */
export const twoHopQuestion = "In which country does @ live?";
