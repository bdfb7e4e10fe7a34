"""Everyday notices with known facts: what the extraction skill reads its answers from.

Each function draws one notice as a text and the facts stated in it, field by field.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from .words import CITIES, NAMES, SURNAMES, counted, full_name, joined

Notice = tuple[str, dict[str, str]]

MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
STREETS = ("Mill Lane", "Harbour Road", "Elm Street", "Station Square", "Orchard Way", "Bridge Street", "Kiln Alley", "Park Row")


def day(rng: Random) -> str:
    """`14 May`."""
    return f"{rng.randint(1, 28)} {rng.choice(MONTHS)}"


def clock(rng: Random, low: int = 7, high: int = 20) -> str:
    """`18:30`."""
    return f"{rng.randint(low, high)}:{rng.choice(('00', '15', '30', '45'))}"


def phone(rng: Random) -> str:
    """A telephone number of the form 555-0142, which nobody owns."""
    return f"555-{rng.randint(100, 199):04d}"


def mail(rng: Random, name: str) -> str:
    """An address at a reserved domain."""
    return f"{name.split()[0].lower()}.{name.split()[-1].lower()}@{rng.choice(('example.org', 'example.com', 'example.net'))}"


def event(rng: Random) -> Notice:
    """An invitation to a public event."""
    what = rng.choice(("flea market", "jazz evening", "poetry reading", "plant swap", "quiz night", "lantern walk", "bread workshop", "film night"))
    where, city = rng.choice(("town hall", "old brewery", "youth centre", "botanical garden", "fire station", "library")), rng.choice(CITIES)
    when, start, price, host = day(rng), clock(rng, 10, 20), f"{rng.randint(3, 18)} euros", full_name(rng)
    noise = rng.choice(("Children are welcome.", "Please bring a cup.", "If it rains, we move indoors.", "Parking is scarce, so come by bike.", ""))
    text = rng.choice((
        f"The {what} of {city} takes place on {when} in the {where}. Doors open at {start}. Tickets cost {price}. {noise} Questions? Ask {host}.",
        f"Save the date: on {when}, {host} invites everyone to a {what} in the {where} of {city}. We start at {start}; entry is {price}. {noise}",
        f"{host} writes: \"After two years we finally have another {what}. Meet us at the {where} in {city} on {when}, at {start} sharp.\" Tickets are {price} at the door. {noise}",
    ))
    return text, {"event": what, "place": where, "city": city, "date": when, "start": start, "price": price, "host": host}


def order(rng: Random) -> Notice:
    """An order confirmation."""
    name, thing = full_name(rng), rng.choice(("desk lamp", "hiking socks", "tea kettle", "board game", "garden hose", "wall clock", "yoga mat"))
    number, count, total = f"{rng.choice('ABKMR')}{rng.randint(10000, 99999)}", rng.randint(1, 6), f"{rng.randint(12, 240)}.{rng.choice((20, 50, 90, 95))} euros"
    street, when = f"{rng.randint(1, 90)} {rng.choice(STREETS)}", day(rng)
    text = rng.choice((
        f"Dear {name}, thank you for your order {number}. We will send {count} × {thing} to {street}, {rng.choice(CITIES)}. The total is {total}. Delivery is expected on {when}.",
        f"Order {number} is on its way! {name}, your parcel with {count} × {thing} should reach you at {street} by {when}. We have charged {total} to your card.",
        f"Hello {name}, we have received {total} for order number {number} ({count} × {thing}). The parcel leaves tomorrow and is due at {street} on {when}. If nobody is at home, it goes to the parcel shop.",
    ))
    return text, {"customer": name, "order number": number, "item": thing, "quantity": str(count), "total": total, "address": street, "delivery date": when}


def job(rng: Random) -> Notice:
    """A job advertisement."""
    role = rng.choice(("pastry chef", "data analyst", "night nurse", "bike courier", "archivist", "electrician", "kindergarten teacher", "sound engineer"))
    firm, city = f"{rng.choice(SURNAMES)} & {rng.choice(('Sons', 'Partners', 'Daughters'))}", rng.choice(CITIES)
    hours, pay, until, person = f"{rng.randint(20, 40)} hours", f"{rng.randint(24, 58)},000 euros a year", day(rng), full_name(rng)
    need = rng.choice(("a driving licence", "two years of experience", "good Spanish", "a first-aid certificate", "a steady hand"))
    text = rng.choice((
        f"{firm} in {city} is looking for a {role} for {hours} a week. You bring {need}; we offer {pay} and six weeks of holiday. Please apply to {person} by {until}.",
        f"Wanted: {role}, {hours} per week. Our team in {city} would love to meet you if you have {need}. The salary is {pay}. {person} of {firm} accepts applications until {until}.",
    ))
    return text, {"position": role, "company": firm, "city": city, "weekly hours": hours, "salary": pay, "requirement": need, "deadline": until, "contact": person}


def flat(rng: Random) -> Notice:
    """A flat to let."""
    rooms, size, rent = counted(rng.randint(1, 5), "room"), f"{rng.randint(28, 120)} square metres", f"{rng.randrange(480, 1650, 10)} euros"
    street, floor, free = f"{rng.randint(2, 80)} {rng.choice(STREETS)}", rng.choice(("ground", "first", "second", "third", "fifth")), f"1 {rng.choice(MONTHS)}"
    number, extra = phone(rng), rng.choice(("a balcony", "a bathtub", "a cellar", "a fitted kitchen", "a share of the garden"))
    text = rng.choice((
        f"To let from {free}: flat with {rooms} and {extra} on the {floor} floor of {street}, {size}, {rent} a month without heating. No agents, please. Call {number} after six.",
        f"We are moving and need somebody for our flat at {street}. It has {size}, {rooms}, {extra} and nice neighbours. The {floor} floor has a lift. {rent} per month, free from {free}. Phone: {number}.",
    ))
    return text, {"address": street, "rooms": rooms.split()[0], "size": size, "rent": rent, "floor": floor, "available from": free, "phone": number}


def journey(rng: Random) -> Notice:
    """A travel booking."""
    name, (start, end) = full_name(rng), rng.sample(CITIES, 2)
    train, when, leave = f"{rng.choice(('IC', 'EC', 'RE'))} {rng.randint(100, 999)}", day(rng), clock(rng, 5, 15)
    seat, price = f"{rng.randint(11, 98)}{rng.choice('AB')}", f"{rng.randint(19, 140)}.{rng.choice(('00', '50', '90'))} euros"
    text = rng.choice((
        f"Booking confirmed. Passenger: {name}. Train {train} leaves {start} on {when} at {leave} and goes to {end}. Your seat is {seat}, coach {rng.randint(1, 9)}. Price: {price}.",
        f"{name}, have a good trip to {end}! Please be on the platform in {start} ten minutes before {leave} on {when}. You travel on {train}, seat {seat}, for {price}. The ticket cannot be refunded.",
    ))
    return text, {"passenger": name, "train": train, "origin": start, "destination": end, "date": when, "departure": leave, "seat": seat, "price": price}


def lost(rng: Random) -> Notice:
    """A lost-and-found notice."""
    thing = rng.choice(("grey cat", "blue rucksack", "silver ring", "child's scooter", "pair of glasses", "bunch of keys", "green parrot"))
    sign = rng.choice(("a red tag", "a small scratch", "a name written inside", "a white spot", "a yellow ribbon"))
    where, when, reward = rng.choice(("the duck pond", "platform 3", "the swimming pool", "the bakery", "the cemetery gate")), rng.choice(WEEKDAYS), f"{rng.randrange(10, 110, 10)} euros"
    name, number = full_name(rng), phone(rng)
    text = rng.choice((
        f"LOST near {where} last {when}: a {thing} with {sign}. It means a lot to me. Whoever finds it gets {reward}. {name}, {number}.",
        f"Has anyone seen a {thing}? It has {sign} and went missing around {where} on {when}. I pay a reward of {reward}. Call {number} and ask for {name}.",
    ))
    return text, {"object": thing, "mark": sign, "place": where, "day": when, "reward": reward, "contact": name, "phone": number}


def voicemail(rng: Random) -> Notice:
    """A message left on the phone."""
    name, when, hour, number = full_name(rng), rng.choice(WEEKDAYS), clock(rng, 8, 17), phone(rng)
    place, matter, bring = rng.choice((
        ("dental practice", "the check-up", "the insurance card"), ("garage", "the new brakes", "the second key"),
        ("optician's", "the new glasses", "the old pair"), ("music school", "the first cello lesson", "a music stand"),
        ("tax office", "the missing form", "a signed copy"), ("animal clinic", "the vaccination", "the blue booklet"),
        ("bicycle shop", "the frame that you ordered", "the receipt"), ("travel agency", "the trip to Crete", "both passports"),
        ("kindergarten", "the first day", "a pair of slippers"), ("photo studio", "the application pictures", "a dark jacket"),
    ))
    text = rng.choice((
        f"Good morning, this is {name} from the {place}. I am calling about {matter}. We could offer you {when} at {hour}. Please bring {bring}, and ring me back at {number} if that does not suit you.",
        f"Hi, {name} here, {place}. So, {matter}: would {when} work for you, let's say {hour}? Do not forget {bring}. My direct line is {number}. Bye!",
    ))
    return text, {"caller": name, "institution": place, "subject": matter, "day": when, "time": hour, "to bring": bring, "phone": number}


def match(rng: Random) -> Notice:
    """A short match report."""
    home, away = rng.sample(CITIES, 2)
    a, b = rng.randint(1, 5), rng.randint(0, 4)
    star, crowd, ground, coach = full_name(rng), f"{rng.randint(2, 38)},{rng.randint(100, 999)}", rng.choice(("Riverside Park", "the Old Ground", "North Arena", "the Brickyard")), full_name(rng)
    minute = f"minute {rng.randint(2, 89)}"
    text = rng.choice((
        f"{home} and {away} met at {ground} in front of {crowd} spectators. The first goal came in {minute}, by {star}. The final score was {a}:{b}. \"We could have played better,\" said coach {coach}.",
        f"{crowd} people came to {ground} to see {home} against {away}, which ended {a}:{b}. {star} had opened the scoring in {minute}. Coach {coach} praised the defence.",
    ))
    return text, {"home team": home, "away team": away, "score": f"{a}:{b}", "first scorer": star, "first goal": minute, "spectators": crowd, "ground": ground, "coach": coach}


def minutes(rng: Random) -> Notice:
    """Notes of a meeting."""
    people = [f"{name} {rng.choice(SURNAMES)}" for name in rng.sample(NAMES, 3)]
    tasks = rng.sample(("order new chairs", "call the printer", "update the price list", "book the hall", "write to the members", "test the new till"), 3)
    when, nxt = day(rng), f"{day(rng)}, {clock(rng, 9, 17)}"
    text = rng.choice((
        f"Notes of {when}. Present: {joined(people)}. {people[0]} will {tasks[0]}. {people[1]} agreed to {tasks[1]} by the end of the week. It was left open who pays for the coffee. {people[2]} is going to {tasks[2]}. Next meeting: {nxt}.",
        f"At the meeting on {when}, {joined(people)} shared out the work: {people[2]} is to {tasks[2]}, {people[0]} has to {tasks[0]}, and {people[1]} promised to {tasks[1]}. They meet again on {nxt}.",
    ))
    return text, {"date": when, **{f"task of {p.split()[0]}": t for p, t in zip(people, tasks)}, "next meeting": nxt, "participants": ", ".join(people)}


def product(rng: Random) -> Notice:
    """A product description."""
    brand, thing = rng.choice(("Kestrel", "Nordlys", "Pico", "Tamarind", "Oakline")), rng.choice(("pocket torch", "camping stove", "bike light", "radio", "hand blender", "cordless screwdriver"))
    weight, warranty, price = f"{rng.randint(150, 990)} g", counted(rng.randint(1, 5), "year"), f"{rng.randint(19, 299)} euros"
    colours, made, box = rng.sample(("red", "olive", "black", "white", "blue", "copper"), 2), rng.choice(("Poland", "Portugal", "Vietnam", "Canada", "Slovenia")), rng.choice(("a carrying bag", "two batteries", "a wall mount", "a cleaning brush"))
    model = f"{brand} {rng.choice('SXT')}{rng.randint(2, 90)}"
    text = rng.choice((
        f"The {model} is a {thing} made in {made}. It comes in {colours[0]} and {colours[1]}, weighs {weight} and costs {price}. In the box you will also find {box}. The warranty is {warranty}.",
        f"New in our shop: the {thing} {model}, only {weight}. You can choose between {colours[0]} and {colours[1]}. It is built in {made} and sold with {box} and a warranty of {warranty} for {price}.",
    ))
    return text, {"model": model, "kind of product": thing, "weight": weight, "warranty": warranty, "price": price, "colours": ", ".join(colours), "country of origin": made, "accessory": box}


def biography(rng: Random) -> Notice:
    """A short life story of an invented person."""
    name, born, city = full_name(rng), rng.randint(1840, 1950), rng.choice(CITIES)
    job_title = rng.choice(("botanist", "composer", "bridge engineer", "poet", "glass painter", "surgeon", "mountaineer", "chess master"))
    work, year = rng.choice(("a book on mosses", "the opera of the canals", "a folding stretcher", "the northern railway viaduct", "a school for weavers")), born + rng.randint(24, 50)
    died, father = year + rng.randint(3, 30), rng.choice(("clockmaker", "fisherman", "teacher", "baker", "judge"))
    text = rng.choice((
        f"{name}, the child of a {father}, was born in {city} in {born}. The {job_title} became known in {year} with {work} and died in {died} after a long illness.",
        f"In {year}, {name} presented {work} and was famous overnight. Hardly anyone remembers that the {job_title}, born in {born} as the child of a {father} in {city}, had failed the first examination. Death came in {died}.",
    ))
    return text, {"name": name, "profession": job_title, "year of birth": str(born), "place of birth": city, "achievement": work, "year of death": str(died), "father's profession": father}


def enquiry(rng: Random) -> Notice:
    """A mail from a possible guest."""
    name, nights, when = full_name(rng), str(rng.randint(2, 14)), day(rng)
    adults, children, wish = counted(rng.randint(1, 4), "adult"), counted(rng.randint(1, 3), "child"), rng.choice(("a cot", "a quiet room", "a parking space", "vegetarian meals", "a room on the ground floor"))
    address, number = mail(rng, name), phone(rng)
    text = rng.choice((
        f"Dear host, we would like to stay with you for {nights} nights from {when}. We are {adults} and {children}. Would {wish} be possible? You can reach me at {address} or {number}. Kind regards, {name}",
        f"My name is {name}. Do you still have room for {adults} and {children}, arriving on {when}? We plan to stay {nights} nights and would need {wish}. Please answer to {address} (or call {number}).",
    ))
    return text, {"name": name, "arrival": when, "nights": nights, "adults": adults.split()[0], "children": children.split()[0], "special request": wish, "e-mail": address, "phone": number}


NOTICES: tuple[Callable[[Random], Notice], ...] = (
    event, order, job, flat, journey, lost, voicemail, match, minutes, product, biography, enquiry,
)
